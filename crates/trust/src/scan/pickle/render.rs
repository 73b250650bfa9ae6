//! Values as text, cut where they are long.

use super::literal::literal;
use super::trace::Trace;
use super::value::{Kind, Value};

/// The longest text of one value, and of one string in it, in characters.
const LONGEST: usize = 400;
const STRING: usize = 200;
/// How deep containers are shown.
const DEPTH: u32 = 4;

impl Trace<'_> {
    /// A value as Python would write it, as far as it is known.
    pub(super) fn render(&self, value: Value) -> String {
        let mut out = String::new();
        self.render_to(&mut out, value, DEPTH);
        if out.chars().count() > LONGEST {
            out = out.chars().take(LONGEST).collect();
            out.push('…');
        }
        out
    }

    fn render_to(&self, out: &mut String, value: Value, depth: u32) {
        if out.len() > LONGEST {
            return;
        }
        match value {
            Value::Opaque | Value::Mark => out.push('…'),
            Value::Plain => out.push('…'),
            Value::Nothing => out.push_str("None"),
            Value::Int(n) => out.push_str(&n.to_string()),
            Value::Text(at) | Value::Bytes(at) => {
                let Some(found) = literal(&self.input, at) else { return out.push('…') };
                let text = String::from_utf8_lossy(&found.bytes);
                if matches!(value, Value::Bytes(_)) {
                    out.push('b');
                }
                let shown: String = text.chars().take(STRING).flat_map(char::escape_debug).collect();
                out.push('\'');
                out.push_str(&shown);
                out.push_str(if text.chars().nth(STRING).is_some() || !found.is_whole() {
                    "…'"
                } else {
                    "'"
                });
            }
            Value::Global(n) => match self.names.get(n as usize) {
                Some(name) => out.push_str(&name.dotted()),
                None => out.push('…'),
            },
            Value::Node(_) => self.render_node(out, value, depth),
        }
    }

    fn render_node(&self, out: &mut String, value: Value, depth: u32) {
        let Some((node, depth)) = self.nodes.get(value).copied().zip(depth.checked_sub(1)) else {
            return out.push('…');
        };
        let (open, close) = match node.kind {
            Kind::Tuple => ('(', ')'),
            Kind::List => ('[', ']'),
            Kind::Dict | Kind::Set => ('{', '}'),
            Kind::Object | Kind::Called | Kind::Attribute => {
                self.render_to(out, node.class.value(), depth);
                return match node.kind {
                    Kind::Attribute => out.push_str(".…"),
                    _ => self.render_to(out, node.args.value(), depth),
                };
            }
            Kind::Persistent => {
                out.push_str("persistent ");
                return self.render_to(out, node.args.value(), depth);
            }
        };
        out.push(open);
        for (at, item) in node.items().iter().enumerate() {
            if at > 0 {
                out.push_str(if node.kind == Kind::Dict && at % 2 == 1 { ": " } else { ", " });
            }
            self.render_to(out, item.value(), depth);
        }
        if node.all().is_none() {
            out.push_str(", …");
        } else if node.kind == Kind::Tuple && node.count == 1 {
            out.push(',');
        }
        out.push(close);
    }
}

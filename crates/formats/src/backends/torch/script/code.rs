//! The text of a program, split into classes, their attributes and methods, and functions.
//!
//! torch prints a program in one manner: two spaces a level, one definition after another. What does not look like
//! that is passed over here, and never an error: the text is shown, not understood.

/// A class that the code defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// The qualified name, `__torch__.torch.nn.modules.linear.Linear`.
    pub name: String,
    /// What it derives from: `Module`, `NamedTuple`, `Enum`, `Interface`, `ModuleInterface`; empty for a plain class.
    pub base: String,
    /// The attributes that are parameters.
    pub parameters: Vec<String>,
    /// The attributes that are buffers.
    pub buffers: Vec<String>,
    /// The attributes, those of the two lists too.
    pub attributes: Vec<Attribute>,
    /// The methods.
    pub methods: Vec<Function>,
}

/// An attribute of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its name.
    pub name: String,
    /// Its type as the code has it: `Tensor`, `Final[int]`, the qualified name of a class; empty for an enum's value.
    pub of: String,
    /// Its value, for constants.
    pub value: Option<String>,
}

/// A method or function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name; qualified for a function outside classes.
    pub name: String,
    /// Its arguments, `self` included.
    pub arguments: Vec<Argument>,
    /// The type that it returns, where the code says it.
    pub returns: Option<String>,
    /// Its text, signature included, as it stands in the file.
    pub source: String,
}

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// Its type, where the code says it.
    pub of: Option<String>,
    /// Its default, as the code has it.
    pub default: Option<String>,
}

impl Function {
    /// The arguments, without a method's first, and the result: `(x: Tensor, flag: bool=True) -> Tensor`.
    pub fn signature(&self, method: bool) -> String {
        let arguments: Vec<String> = self
            .arguments
            .iter()
            .skip(usize::from(method))
            .map(|argument| {
                let of = argument.of.as_ref().map_or_else(String::new, |of| format!(": {of}"));
                let default = argument.default.as_ref().map_or_else(String::new, |value| format!("={value}"));
                format!("{}{of}{default}", argument.name)
            })
            .collect();
        let returns = self.returns.as_ref().map_or_else(String::new, |of| format!(" -> {of}"));
        format!("({}){returns}", arguments.join(", "))
    }
}

/// Splits the text of one file, whose definitions have names below `prefix`.
pub(super) fn split(prefix: &str, text: &str, classes: &mut Vec<Class>, functions: &mut Vec<Function>) {
    let mut class: Option<Class> = None;
    let mut rest = text;
    while !rest.is_empty() {
        let line = rest.split_inclusive('\n').next().unwrap_or(rest);
        let indent = indent_of(line);
        let content = line.trim();
        if content.is_empty() {
            rest = &rest[line.len()..];
            continue;
        }
        if indent == 0 {
            classes.extend(class.take());
        }
        if content.starts_with("def ") {
            let len = definition(rest, indent);
            let (own, behind) = rest.split_at(len);
            if let Some(mut function) = function(own.trim_end_matches('\n')) {
                match &mut class {
                    Some(class) => class.methods.push(function),
                    None => {
                        function.name = format!("{prefix}.{}", function.name);
                        functions.push(function);
                    }
                }
            }
            rest = behind;
            continue;
        }
        if indent == 0 && content.starts_with("class ") {
            let head = content.trim_start_matches("class ").trim_end_matches(':');
            let (name, base) = head.split_once('(').unwrap_or((head, ""));
            class = Some(Class {
                name: format!("{prefix}.{}", name.trim()),
                base: base.trim_end_matches(')').to_owned(),
                ..Class::default()
            });
        } else if let Some(class) = class.as_mut().filter(|_| indent > 0) {
            attribute(content, class);
        }
        rest = &rest[line.len()..];
    }
    classes.extend(class);
}

fn indent_of(line: &str) -> usize {
    line.len() - line.trim_start_matches(' ').len()
}

/// The length of the definition that text begins with: its first line and the deeper ones after it.
fn definition(text: &str, indent: usize) -> usize {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().map_or(0, str::len);
    let deeper = lines.take_while(|line| line.trim().is_empty() || indent_of(line) > indent);
    first + deeper.map(str::len).sum::<usize>()
}

/// Where the colon of a signature is: outside of brackets and quotes.
fn signature_end(text: &str) -> Option<usize> {
    top_level(text).find(|&(_, byte)| byte == b':').map(|(at, _)| at)
}

/// The bytes of a text that stand in no bracket and no quotes, with their places; brackets themselves are left out.
fn top_level(text: &str) -> impl Iterator<Item = (usize, u8)> + '_ {
    let (mut depth, mut quote, mut escaped) = (0u32, None::<u8>, false);
    text.bytes().enumerate().filter(move |&(_, byte)| {
        if let Some(open) = quote {
            if escaped {
                escaped = false;
            } else if byte == b'\\' {
                escaped = true;
            } else if byte == open {
                quote = None;
            }
            return false;
        }
        match byte {
            b'"' | b'\'' => quote = Some(byte),
            b'(' | b'[' | b'{' => depth = depth.saturating_add(1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => return depth == 0,
        }
        false
    })
}

/// A definition's name, arguments and result.
fn function(source: &str) -> Option<Function> {
    let head = source.get(..signature_end(source)?)?;
    let (name, rest) = head.trim_start().strip_prefix("def ")?.split_once('(')?;
    let close = rest.rfind("->").map_or(rest.len(), |at| at);
    let returns = rest.get(close..).map(|r| r.trim_start_matches("->").trim()).filter(|r| !r.is_empty());
    let inner = rest.get(..close)?.trim_end().strip_suffix(')')?;
    let arguments = pieces(inner, b',').into_iter().map(str::trim).filter(|a| !a.is_empty()).map(argument);
    Some(Function {
        name: name.trim().to_owned(),
        arguments: arguments.collect(),
        returns: returns.map(str::to_owned),
        source: source.to_owned(),
    })
}

/// The parts of a text between separators that stand in no bracket and no quotes.
fn pieces(text: &str, separator: u8) -> Vec<&str> {
    let (mut found, mut start) = (Vec::new(), 0);
    for (at, byte) in top_level(text) {
        if byte == separator {
            found.extend(text.get(start..at));
            start = at + 1;
        }
    }
    found.extend(text.get(start..));
    found
}

fn argument(text: &str) -> Argument {
    let mut default = None;
    let mut head = text;
    if let Some((at, _)) = top_level(text).find(|&(_, byte)| byte == b'=') {
        (head, default) = (&text[..at], text.get(at + 1..).map(|d| d.trim().to_owned()));
    }
    let (name, of) = match head.split_once(':') {
        Some((name, of)) => (name, Some(of.trim().to_owned())),
        None => (head, None),
    };
    Argument { name: name.trim().to_owned(), of, default }
}

/// A line of a class that is no method.
fn attribute(line: &str, class: &mut Class) {
    let names = |list: &str| {
        pieces(list.trim().trim_start_matches('[').trim_end_matches(']'), b',')
            .into_iter()
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    };
    let of = |name: &str, of: &str, value: Option<&str>| Attribute {
        name: name.trim().trim_matches('"').to_owned(),
        of: of.trim().to_owned(),
        value: value.map(|value| value.trim().to_owned()),
    };
    if let Some((_, list)) = line.split_once("__parameters__ = ") {
        class.parameters = names(list);
    } else if let Some((_, list)) = line.split_once("__buffers__ = ") {
        class.buffers = names(list);
    } else if let Some((name, kind)) =
        line.strip_prefix("__annotations__[").and_then(|l| l.split_once("] = "))
    {
        class.attributes.push(of(name, kind, None));
    } else if let Some((name, rest)) = line.split_once(" : ") {
        let (kind, value) = match top_level(rest).find(|&(_, byte)| byte == b'=') {
            Some((at, _)) => (&rest[..at], rest.get(at + 1..)),
            None => (rest, None),
        };
        class.attributes.push(of(name, kind, value));
    } else if let Some((name, value)) = line.split_once(" = ")
        && !name.starts_with("__")
    {
        class.attributes.push(of(name, "", Some(value)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"class M(Module):
  __parameters__ = ["weight", "bias", ]
  __buffers__ = ["table", ]
  weight : Tensor
  __annotations__["0"] = __torch__.Sub
  in_features : Final[int] = 3
  label : Final[str] = "a = (b"
  def forward(self: __torch__.M,
    x: Tensor,
    d: Dict[str, int]={},
    text: str="):") -> Tuple[Tensor, int]:
    y = torch.add(x, 1)

    if True:
      pass
    return (y, 2)
  def other(self: __torch__.M) -> NoneType:
    return None
class Color(Enum):
  RED = 1
def helper(x: Tensor) -> Tensor:
  return x
"#;

    #[test]
    fn a_program_is_split_into_its_definitions() {
        let (mut classes, mut functions) = (Vec::new(), Vec::new());
        split("__torch__.a", TEXT, &mut classes, &mut functions);
        let [module, color] = &classes[..] else { panic!("{classes:?}") };
        assert_eq!((&*module.name, &*module.base), ("__torch__.a.M", "Module"));
        assert_eq!(
            (&module.parameters[..], &module.buffers[..]),
            (&["weight".into(), "bias".into()][..], &["table".into()][..])
        );
        let attributes: Vec<(&str, &str, Option<&str>)> =
            module.attributes.iter().map(|a| (&*a.name, &*a.of, a.value.as_deref())).collect();
        assert_eq!(
            attributes,
            [
                ("weight", "Tensor", None),
                ("0", "__torch__.Sub", None),
                ("in_features", "Final[int]", Some("3")),
                ("label", "Final[str]", Some("\"a = (b\"")),
            ]
        );
        let [forward, other] = &module.methods[..] else { panic!() };
        assert_eq!(
            forward.signature(true),
            "(x: Tensor, d: Dict[str, int]={}, text: str=\"):\") -> Tuple[Tensor, int]"
        );
        assert!(
            forward.source.starts_with("  def forward(self") && forward.source.ends_with("return (y, 2)")
        );
        assert_eq!((&*other.name, &*other.signature(true)), ("other", "() -> NoneType"));
        assert_eq!((&*color.base, &*color.attributes[0].name), ("Enum", "RED"));
        assert_eq!((&*functions[0].name, functions.len()), ("__torch__.a.helper", 1));
        assert_eq!(functions[0].signature(false), "(x: Tensor) -> Tensor");
    }

    #[test]
    fn unclosed_signatures_are_each_read_once() {
        for line in ["def f(\n", "def f(\n  x\n", "  def f([{(\"\n", "class A(\n"] {
            let (mut classes, mut functions) = (Vec::new(), Vec::new());
            let start = std::time::Instant::now();
            split("p", &line.repeat(200_000), &mut classes, &mut functions);
            assert!(start.elapsed().as_secs() < 20, "{line:?}");
        }
    }

    #[test]
    fn no_text_is_too_odd() {
        let odd = [
            "def",
            "def ",
            "def f",
            "def f(",
            "def f(:",
            "class",
            "class ",
            "class (",
            "def f(a=\"",
            "  def f():\n",
            "class A(B):\n  def f(",
            "\u{e9}\n \u{e9} : \u{e9}=\u{e9}",
            "class A:\n  __annotations__[",
            "((((((]]]:::",
        ];
        for text in odd {
            for end in 0..=TEXT.len() {
                let Some(part) = TEXT.get(..end) else { continue };
                split("p", &format!("{part}{text}"), &mut Vec::new(), &mut Vec::new());
            }
            split("p", &format!("{text}\n{TEXT}"), &mut Vec::new(), &mut Vec::new());
        }
    }
}

//! Jinja templates (chat templates): what they do beyond putting text together.
//!
//! A template is split into the same tokens that Jinja's lexer makes, and judged by its names, strings, calls and loops.
//! What a template of a chat needs is known: a few functions, filters and methods of text, lists and dicts. What reaches
//! for an object's insides is dangerous, and what is neither is unknown.

use std::collections::HashSet;

use super::report::{Place, Severity, Verdict};
use super::subject::{Sink, finding};

/// The longest template that is looked at, in bytes.
const MOST_BYTES: usize = 1 << 20;
/// The most findings of one template.
const MOST_FINDINGS: usize = 20;
/// A count from which on a loop or a repetition is no formatting any more.
const LARGE: f64 = 1e7;

/// Statements of Jinja, of its loop controls, and of transformers (`generation`).
const STATEMENTS: &[&str] = &[
    "autoescape",
    "block",
    "break",
    "call",
    "continue",
    "do",
    "elif",
    "else",
    "endautoescape",
    "endblock",
    "endcall",
    "endfilter",
    "endfor",
    "endgeneration",
    "endif",
    "endmacro",
    "endraw",
    "endset",
    "endtrans",
    "endwith",
    "filter",
    "for",
    "generation",
    "if",
    "macro",
    "pluralize",
    "raw",
    "set",
    "trans",
    "with",
];

/// Functions that a template may call: Jinja's own that make text and values, and those that transformers adds.
const FUNCTIONS: &[&str] =
    &["caller", "cycler", "dict", "joiner", "loop", "namespace", "raise_exception", "range", "strftime_now"];

/// Methods of text, lists, dicts and Jinja's own objects.
const METHODS: &[&str] = &[
    "append",
    "capitalize",
    "copy",
    "count",
    "cycle",
    "endswith",
    "extend",
    "find",
    "get",
    "index",
    "insert",
    "isalnum",
    "isalpha",
    "isdigit",
    "islower",
    "isspace",
    "isupper",
    "items",
    "join",
    "keys",
    "ljust",
    "lower",
    "lstrip",
    "next",
    "partition",
    "pop",
    "removeprefix",
    "removesuffix",
    "replace",
    "reset",
    "reverse",
    "rfind",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "setdefault",
    "split",
    "splitlines",
    "startswith",
    "strftime",
    "strip",
    "title",
    "update",
    "upper",
    "values",
    "zfill",
    "changed",
];

/// Filters of Jinja that are for text and values, and of transformers.
const FILTERS: &[&str] = &[
    "abs",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "from_json",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    Name(String),
    Text(String),
    Number(f64),
    Sign(&'static str),
}

#[derive(Clone, Debug)]
struct Token {
    kind: Kind,
    at: usize,
}

/// A tag: its tokens, and whether it is a statement (`{% %}`) or a value (`{{ }}`).
struct Tag {
    statement: bool,
    at: usize,
    tokens: Vec<Token>,
}

/// Looks at a template that stands at `offset` of a place.
pub(crate) fn inspect(text: &str, place: &Place, offset: u64, sink: &mut Sink<'_>) {
    sink.kind("template");
    if text.len() > MOST_BYTES {
        let what = format!("a template of {} bytes; {MOST_BYTES} are looked at", text.len());
        sink.finding(finding(place, "template", Verdict::Unknown, what).at(offset));
        return;
    }
    let mut found = judge(text);
    found.sort_by_key(|f| (std::cmp::Reverse(f.verdict), f.at));
    found.dedup_by(|a, b| a.what == b.what);
    for remark in found.into_iter().take(MOST_FINDINGS) {
        let mut new = finding(place, "template", remark.verdict, remark.what).at(offset + remark.at as u64);
        if remark.verdict == Verdict::Unknown {
            new.severity = Severity::Medium;
        }
        if !remark.name.is_empty() {
            new.callable = Some(remark.name);
        }
        sink.finding(new);
    }
}

/// What is to be said of a template.
#[derive(Debug)]
struct Remark {
    verdict: Verdict,
    at: usize,
    what: String,
    name: String,
}

fn judge(text: &str) -> Vec<Remark> {
    let tags = tags(text);
    // Macros and names that a template sets may be called.
    let mut own: HashSet<&str> = HashSet::new();
    for tag in &tags {
        if let [Token { kind: Kind::Name(word), .. }, Token { kind: Kind::Name(name), .. }, ..] =
            tag.tokens.as_slice()
            && (word == "macro" || word == "set")
        {
            own.insert(name);
        }
    }
    let mut remarks = Vec::new();
    let mut loops: Vec<f64> = Vec::new();
    for tag in &tags {
        let mut judge = Judge { tag, own: &own, remarks: &mut remarks };
        judge.statement(&mut loops);
        judge.names();
        judge.texts();
        judge.numbers();
        judge.subscripts();
    }
    remarks
}

struct Judge<'a, 'r> {
    tag: &'a Tag,
    own: &'a HashSet<&'a str>,
    remarks: &'r mut Vec<Remark>,
}

impl Judge<'_, '_> {
    fn say(&mut self, verdict: Verdict, at: usize, name: &str, what: String) {
        if self.remarks.len() < 1000 {
            let name: String = name.chars().take(80).collect();
            self.remarks.push(Remark { verdict, at, what, name });
        }
    }

    fn sign(&self, i: usize) -> &'static str {
        match self.tag.tokens.get(i) {
            Some(Token { kind: Kind::Sign(sign), .. }) => sign,
            _ => "",
        }
    }

    fn name(&self, i: usize) -> &str {
        match self.tag.tokens.get(i) {
            Some(Token { kind: Kind::Name(name), .. }) => name,
            _ => "",
        }
    }

    fn before(&self, i: usize) -> &'static str {
        i.checked_sub(1).map_or("", |i| self.sign(i))
    }

    /// The word that a statement begins with, and how often loops in loops run where that is a constant.
    fn statement(&mut self, loops: &mut Vec<f64>) {
        if !self.tag.statement {
            return;
        }
        let word = self.name(0).to_owned();
        let at = self.tag.at;
        match word.as_str() {
            "include" | "import" | "from" | "extends" => {
                let file = self.tag.tokens.iter().find_map(|t| match &t.kind {
                    Kind::Text(text) => Some(text.chars().take(100).collect::<String>()),
                    _ => None,
                });
                let what = match file {
                    Some(file) => format!("`{word}` of the other file {file:?}"),
                    None => format!("`{word}` of another file, whose name it computes"),
                };
                self.say(Verdict::Dangerous, at, &word, what);
            }
            "for" => {
                // Each entry is the product of all loops up to it.
                let times = loops.last().unwrap_or(&1.0) * self.range().unwrap_or(1.0);
                loops.push(times);
                if times >= LARGE {
                    self.say(Verdict::Dangerous, at, "range", format!("loops that run {times:e} times"));
                }
            }
            "endfor" => _ = loops.pop(),
            other if !STATEMENTS.contains(&other) => {
                let name: String = other.chars().take(80).collect();
                self.say(Verdict::Unknown, at, other, format!("the unknown statement {name:?}"));
            }
            _ => {}
        }
    }

    /// What `range(…)` of this tag counts to, where that is a constant.
    fn range(&self) -> Option<f64> {
        let start =
            (0..self.tag.tokens.len()).find(|&i| self.name(i) == "range" && self.sign(i + 1) == "(")?;
        let numbers = self.tag.tokens.iter().skip(start + 2).map_while(|t| match t.kind {
            Kind::Sign(")") => None,
            Kind::Number(n) => Some(n),
            _ => Some(0.0),
        });
        Some(numbers.fold(1.0, f64::max))
    }

    fn names(&mut self) {
        for i in 0..self.tag.tokens.len() {
            let name = self.name(i).to_owned();
            if name.is_empty() {
                continue;
            }
            let at = self.tag.tokens.get(i).map_or(0, |t| t.at);
            let before = self.before(i);
            let called = self.sign(i + 1) == "(";
            if name.starts_with("__") {
                self.say(
                    Verdict::Dangerous,
                    at,
                    &name,
                    format!("it reaches for {name:?}, an object's insides"),
                );
            } else if before == "." && name.starts_with('_') {
                self.say(
                    Verdict::Unknown,
                    at,
                    &name,
                    format!("it reaches for the private attribute {name:?}"),
                );
            } else if before == "." && called && !METHODS.contains(&name.as_str()) {
                self.say(Verdict::Unknown, at, &name, format!("it calls the method {name:?}"));
            } else if before == "|" && name == "attr" {
                self.attr(i, at);
            } else if before == "|" && !FILTERS.contains(&name.as_str()) {
                self.say(
                    Verdict::Unknown,
                    at,
                    &name,
                    format!("it uses the filter {name:?}, which Jinja does not have"),
                );
            } else if called && before != "." && before != "|" && !self.may_call(i, &name) {
                self.say(
                    Verdict::Unknown,
                    at,
                    &name,
                    format!("it calls {name:?}, which templates of chats do not have"),
                );
            }
        }
    }

    /// Whether a name before a bracket is a function that is known, one of the template, or no call at all.
    fn may_call(&self, i: usize, name: &str) -> bool {
        const WORDS: &[&str] = &[
            "and", "elif", "else", "if", "in", "is", "not", "or", "call", "filter", "set", "with", "for",
            "do",
        ];
        let test = i > 0
            && (self.name(i - 1) == "is" || self.name(i - 1) == "not" && i > 1 && self.name(i - 2) == "is");
        let defined = i > 0 && ["macro", "block"].contains(&self.name(i - 1));
        WORDS.contains(&name) || FUNCTIONS.contains(&name) || self.own.contains(name) || test || defined
    }

    /// The filter `attr`, which takes an attribute by a computed name.
    fn attr(&mut self, i: usize, at: usize) {
        let constant = match (self.sign(i + 1), self.tag.tokens.get(i + 2).map(|t| &t.kind), self.sign(i + 3))
        {
            ("(", Some(Kind::Text(text)), ")") if !text.contains('_') => Some(text.clone()),
            _ => None,
        };
        match constant {
            Some(name) => {
                self.say(Verdict::Unknown, at, "attr", format!("it takes the attribute {name:?} by `attr`"));
            }
            None => {
                self.say(
                    Verdict::Dangerous,
                    at,
                    "attr",
                    "it takes an attribute by a name that it computes".into(),
                );
            }
        }
    }

    /// Strings that are, or become when they are put together, the name of an object's insides.
    fn texts(&mut self) {
        let mut all = String::new();
        let puts_together = self.tag.tokens.iter().any(|t| match &t.kind {
            Kind::Sign(sign) => ["~", "*", "%"].contains(sign),
            Kind::Name(name) => name == "join" || name == "format",
            _ => false,
        });
        for token in &self.tag.tokens {
            let Kind::Text(text) = &token.kind else { continue };
            all.push_str(text);
            let shown: String = text.chars().take(60).collect();
            if is_dunder(text) {
                self.say(
                    Verdict::Dangerous,
                    token.at,
                    &shown,
                    format!("the name {shown:?} of an object's insides as text"),
                );
            } else if text.contains("%c")
                || puts_together && !text.is_empty() && text.bytes().all(|b| b == b'_')
            {
                self.say(
                    Verdict::Unknown,
                    token.at,
                    "",
                    format!("the text {shown:?}, of which a hidden name can be made"),
                );
            } else if text.match_indices("__").any(|(i, _)| touches_letter(text, i)) {
                self.say(
                    Verdict::Unknown,
                    token.at,
                    "",
                    format!("the text {shown:?}, which is a part of a hidden name"),
                );
            } else if text == "attr" {
                self.say(Verdict::Unknown, token.at, "attr", "the filter `attr` by its name".into());
            }
        }
        let parts = self.tag.tokens.iter().filter(|t| matches!(t.kind, Kind::Text(_))).count();
        let backwards: String = all.chars().rev().collect();
        if parts > 1 && (is_dunder(&all) || is_dunder(&backwards)) || parts == 1 && is_dunder(&backwards) {
            let shown: String = all.chars().take(60).collect();
            let what = format!("the name of an object's insides, put together of parts: {shown:?}");
            self.say(Verdict::Dangerous, self.tag.at, "", what);
        }
    }

    fn numbers(&mut self) {
        for (i, token) in self.tag.tokens.iter().enumerate() {
            let Kind::Number(number) = token.kind else {
                if self.sign(i + 1) == "**" {
                    self.say(Verdict::Unknown, token.at, "", "a power that it computes".into());
                }
                continue;
            };
            let power = match (self.sign(i + 1), self.tag.tokens.get(i + 2).map(|t| &t.kind)) {
                ("**", Some(Kind::Number(exponent))) => number.powf(*exponent),
                ("**", _) => {
                    self.say(Verdict::Unknown, token.at, "", "a power that it computes".into());
                    continue;
                }
                _ => number,
            };
            if power >= LARGE {
                let what =
                    format!("the number {power:e}, as a loop or repetition that uses up time or memory");
                self.say(Verdict::Dangerous, token.at, "", what);
            }
        }
    }

    /// Subscripts whose key is put together of parts: `x['__cla' ~ 'ss__']`.
    fn subscripts(&mut self) {
        let mut open: Vec<(bool, usize)> = Vec::new();
        for i in 0..self.tag.tokens.len() {
            let at = self.tag.tokens.get(i).map_or(0, |t| t.at);
            let behind_value = i > 0
                && match self.tag.tokens.get(i - 1).map(|t| &t.kind) {
                    Some(Kind::Name(name)) => {
                        !["in", "if", "else", "and", "or", "not", "is", "set"].contains(&name.as_str())
                    }
                    Some(Kind::Text(_)) => true,
                    Some(Kind::Sign(sign)) => [")", "]"].contains(sign),
                    _ => false,
                };
            match self.sign(i) {
                "[" => open.push((behind_value, at)),
                "(" | "{" => open.push((false, at)),
                "]" | ")" | "}" => _ = open.pop(),
                sign @ ("~" | "*") if open.last().is_some_and(|o| o.0) => {
                    self.say(Verdict::Unknown, at, "", format!("a key that is put together by `{sign}`"));
                }
                "+" if open.last().is_some_and(|o| o.0) => {
                    let text = |t: Option<&Token>| matches!(t.map(|t| &t.kind), Some(Kind::Text(_)));
                    if text(i.checked_sub(1).and_then(|i| self.tag.tokens.get(i)))
                        || text(self.tag.tokens.get(i + 1))
                    {
                        self.say(Verdict::Unknown, at, "", "a key that is put together by `+`".into());
                    }
                }
                _ => {}
            }
        }
    }
}

/// Whether a text holds a name with two underscores on both sides.
fn is_dunder(text: &str) -> bool {
    text.match_indices("__").any(|(i, _)| {
        let rest = text.get(i + 2..).unwrap_or_default();
        let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let word = rest.get(..len).unwrap_or_default();
        word.find("__").is_some_and(|end| end > 0 && word.starts_with(|c: char| c.is_ascii_alphabetic()))
    })
}

/// Whether the two underscores at `i` stand beside a letter.
fn touches_letter(text: &str, i: usize) -> bool {
    let bytes = text.as_bytes();
    let letter = |b: Option<&u8>| b.is_some_and(u8::is_ascii_lowercase);
    letter(bytes.get(i + 2)) || i.checked_sub(1).is_some_and(|i| letter(bytes.get(i)))
}

/// Splits a template into its tags. What stands in `raw` is taken for code too, so that nothing can hide there.
fn tags(text: &str) -> Vec<Tag> {
    let bytes = text.as_bytes();
    let (mut at, mut tags) = (0, Vec::new());
    while let Some(start) = text.get(at..).and_then(|rest| rest.find('{')).map(|i| at + i) {
        at = start + 2;
        match bytes.get(start + 1) {
            Some(b'#') => match text.get(at..).and_then(|rest| rest.find("#}")) {
                Some(end) => at += end + 2,
                None => break,
            },
            Some(open @ (b'%' | b'{')) => {
                let statement = *open == b'%';
                // The sign that trims white space is no part of what follows.
                at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
                let (tokens, end) = tokens(text, at, statement);
                tags.push(Tag { statement, at: start, tokens });
                at = end;
            }
            _ => at = start + 1,
        }
    }
    tags
}

/// Signs of more than one character.
const SIGNS: &[&str] = &["**", "//", "==", "!=", "<=", ">="];
/// Signs of one.
const SINGLE: &[&str] =
    &["+", "-", "*", "/", "%", "~", "<", ">", "=", ".", ":", "|", ",", ";", "(", ")", "[", "]", "{", "}"];

/// The tokens of a tag from `at` on, and where it ends.
fn tokens(text: &str, mut at: usize, statement: bool) -> (Vec<Token>, usize) {
    let bytes = text.as_bytes();
    let (mut out, mut depth) = (Vec::new(), 0usize);
    let end_mark = if statement { "%}" } else { "}}" };
    while let Some(&byte) = bytes.get(at) {
        let rest = text.get(at..).unwrap_or_default();
        if depth == 0
            && (rest.starts_with(end_mark)
                || rest.get(1..).is_some_and(|r| "-+".contains(byte as char) && r.starts_with(end_mark)))
        {
            return (out, at + if byte == b'-' || byte == b'+' { 3 } else { 2 });
        }
        let start = at;
        let kind = match byte {
            b'\'' | b'"' => {
                let (string, len) = string(rest, byte);
                at += len;
                Kind::Text(string)
            }
            b'0'..=b'9' => {
                let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || b"._".contains(b)).count();
                at += len;
                Kind::Number(number(rest.get(..len).unwrap_or_default()))
            }
            _ if byte == b'_' || byte.is_ascii_alphabetic() || byte >= 0x80 => {
                let len = rest
                    .bytes()
                    .take_while(|b| b.is_ascii_alphanumeric() || *b == b'_' || *b >= 0x80)
                    .count();
                at += len;
                Kind::Name(rest.get(..len).unwrap_or_default().to_owned())
            }
            _ => {
                let sign = SIGNS.iter().chain(SINGLE).find(|s| rest.starts_with(**s)).copied();
                at += sign.map_or(1, str::len);
                match sign {
                    Some("(" | "[" | "{") => depth += 1,
                    Some(")" | "]" | "}") => depth = depth.saturating_sub(1),
                    Some(_) => {}
                    None => continue,
                }
                Kind::Sign(sign.unwrap_or_default())
            }
        };
        out.push(Token { kind, at: start });
    }
    (out, text.len())
}

/// A number of Jinja: digits with underscores between, hexadecimal, octal and binary ones, floats.
fn number(text: &str) -> f64 {
    let plain = text.replace('_', "").to_ascii_lowercase();
    let radix = |prefix: &str, radix| {
        plain
            .strip_prefix(prefix)
            .map(|digits| u128::from_str_radix(digits, radix).map_or(f64::INFINITY, |n| n as f64))
    };
    let other = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    other.unwrap_or_else(|| plain.parse().unwrap_or(0.0))
}

/// A string from its quote on, its escapes resolved, and its length in the text.
fn string(text: &str, quote: u8) -> (String, usize) {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((i, c)) = chars.next() {
        if c as u32 == u32::from(quote) {
            return (out, i + 1);
        }
        if c != '\\' {
            out.push(c);
            continue;
        }
        let Some((at, escape)) = chars.next() else { break };
        let digits = match escape {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' => {
                out.push('\n');
                continue;
            }
            // A character by its name; only the underscore's matters.
            'N' => {
                let name = text.get(at + 1..).and_then(|r| r.split_once('}')).map(|(name, _)| name);
                let name = name.unwrap_or_default();
                out.push(if name.contains("LOW LINE") { '_' } else { '\u{FFFD}' });
                (0..name.chars().count() + 1).for_each(|_| _ = chars.next());
                continue;
            }
            't' => {
                out.push('\t');
                continue;
            }
            '0'..='7' => {
                let code = text.get(at..).unwrap_or_default();
                let len = code.bytes().take(3).take_while(|b| (b'0'..b'8').contains(b)).count();
                let value = code.get(..len).and_then(|d| u32::from_str_radix(d, 8).ok());
                out.push(value.and_then(char::from_u32).unwrap_or('\u{FFFD}'));
                (1..len).for_each(|_| _ = chars.next());
                continue;
            }
            other => {
                out.push(other);
                continue;
            }
        };
        let code = text.get(at + 1..at + 1 + digits).and_then(|d| u32::from_str_radix(d, 16).ok());
        match code.and_then(char::from_u32) {
            Some(c) => {
                out.push(c);
                (0..digits).for_each(|_| _ = chars.next());
            }
            None => out.push(escape),
        }
    }
    (out, text.len())
}

#[cfg(test)]
mod tests;

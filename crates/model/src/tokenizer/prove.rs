//! The proof that two tokenizers encode alike, on texts of many scripts and on odd ones.

use std::fmt;

use weighbridge_formats::Result;

use super::Tokenizer;

/// Texts of many languages and scripts, and texts that tokenizers get wrong: white space, control characters,
/// combining marks, emoji, code, special tokens spelled out, very long words.
pub const CORPUS: &[&str] = &[
    "",
    " ",
    "Hello, world!",
    "  The quick brown fox  jumps over the lazy dog.  ",
    "don't you'll we've I'm it's they'd o'clock ROCK'N'ROLL",
    "Größenwahn & Straßenbahn: ÄÖÜ äöü ß ẞ",
    "L'été, où ça? Cœur naïf — déjà vu…",
    "¿Dónde está la niña? ¡Aquí, señor!",
    "Zażółć gęślą jaźń; Příliš žluťoučký kůň",
    "İstanbul'da ığdır, Iı İi",
    "Привет, мир! Съешь же ещё этих мягких французских булок.",
    "Καλημέρα κόσμε· ὦ ἄνδρες Ἀθηναῖοι",
    "שלום עולם, מה שלומך?",
    "مرحبا بالعالم، كيف الحال؟ ١٢٣",
    "नमस्ते दुनिया, क्षत्रिय",
    "สวัสดีชาวโลก ภาษาไทย",
    "你好,世界!今天天气很好。",
    "こんにちは世界。カタカナ ﾊﾝｶｸ ぱ ぱ",
    "안녕하세요 세계, 한국어 가",
    "Xin chào thế giới, tiếng Việt",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽 🇩🇪 ☃ ☃️",
    "e\u{301} \u{e9} a\u{30a}\u{323} Z\u{351}\u{36b}\u{343}a\u{328}lgo",
    "\u{fb01}ne \u{fb03} \u{2460} \u{ff21}\u{ff22}\u{ff23} \u{2126} \u{212b} x\u{b2}",
    "zero\u{200b}width\u{200d}joiner\u{2060}and\u{feff}mark soft\u{ad}hyphen",
    "non\u{a0}breaking\u{2003}em\u{3000}ideographic\u{2028}line\u{85}next",
    "tab\tnew\nline\r\nreturn\rend\u{b}\u{c}",
    "null\u{0}bell\u{7}escape\u{1b}[0m delete\u{7f} replacement\u{fffd}",
    "private \u{e000} \u{f8ff} astral \u{10348} \u{1d54f} last \u{10ffff}",
    "3.14159 1,000,000 1e-10 0xFF 12:34 2024-02-29 ½ ٣ ४",
    "https://example.org/a?b=c&d=%20#e user@example.org C:\\path\\file.txt",
    "fn main() { println!(\"{:?}\", vec![1, 2]); } // comment",
    "def f(x):\n    return x ** 2  # two\n\n\n        deep",
    "<div class=\"a\">&nbsp;</div> {\"key\": [null, true]}",
    "ALLCAPS camelCase snake_case kebab-case MiXeD",
    "!!! ??? ... --- ___ *** ((())) [[[]]] $€£¥₿ «»„“”‘’",
    "[CLS] [SEP] [MASK] [PAD] [UNK] a[MASK]b",
    "<s> </s> <pad> <mask> <unk> a <mask> b<mask>c <|endoftext|> <eos>",
    "##ing Ġword </w> ▁under",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "Donaudampfschifffahrtsgesellschaftskapitän pneumonoultramicroscopicsilicovolcanoconiosis",
    " leading",
    "trailing ",
    "a  b   c    d",
];

/// The first text that two tokenizers encode differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The text.
    pub text: String,
    /// Whether special tokens were put around it.
    pub special_tokens: bool,
    /// The first place at which the ids differ.
    pub position: usize,
    /// The ids of the first tokenizer.
    pub left: Vec<u32>,
    /// The ids of the second.
    pub right: Vec<u32>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = |ids: &[u32]| ids.get(self.position).map_or("the end".to_owned(), ToString::to_string);
        write!(
            f,
            "{:?} is encoded differently: at place {} of {} and {} ids is {} here and {} there",
            self.text,
            self.position,
            self.left.len(),
            self.right.len(),
            id(&self.left),
            id(&self.right)
        )
    }
}

impl Tokenizer {
    /// Encodes [`CORPUS`] and the caller's texts with both, with special tokens and without, each text alone and
    /// each in a pair with the next; the first difference, or none.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`], of either; what neither can encode is no difference.
    pub fn prove_same(&self, other: &Self, texts: &[&str]) -> Result<Option<Difference>> {
        let all: Vec<&str> = CORPUS.iter().chain(texts).copied().collect();
        for &text in &all {
            for special_tokens in [true, false] {
                let ids = |t: &Self| t.encode(text, special_tokens);
                let found = compare(ids(self), ids(other))?;
                if let Some((position, left, right)) = found {
                    let text = text.to_owned();
                    return Ok(Some(Difference { text, special_tokens, position, left, right }));
                }
            }
        }
        for (&text, &next) in all.iter().zip(all.iter().cycle().skip(1)) {
            let ids = |t: &Self| {
                let (mut ids, types) = t.encode_pair(text, next)?;
                ids.extend(types);
                Ok(ids)
            };
            if let Some((position, left, right)) = compare(ids(self), ids(other))? {
                let text = format!("{text}, {next}");
                return Ok(Some(Difference { text, special_tokens: true, position, left, right }));
            }
        }
        Ok(None)
    }
}

type Found = Option<(usize, Vec<u32>, Vec<u32>)>;

fn compare(left: Result<Vec<u32>>, right: Result<Vec<u32>>) -> Result<Found> {
    let (left, right) = match (left, right) {
        (Err(_), Err(_)) => return Ok(None),
        (left, right) => (left?, right?),
    };
    if left == right {
        return Ok(None);
    }
    let position = left.iter().zip(&right).position(|(l, r)| l != r);
    Ok(Some((position.unwrap_or_else(|| left.len().min(right.len())), left, right)))
}

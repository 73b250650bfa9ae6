//! Armored age files, read at any offset.
//!
//! Armor is base64 in lines of 64 characters between two marks. The crate's reader finds a place in it by decoding all
//! before it; since the lines are of one length, here it is computed.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use weighbridge_formats::{Error, ReadAt, Result};

use super::reader::head_of;

/// The mark before the text, and the one after it.
pub(super) const BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
pub(super) const END: &[u8] = b"-----END AGE ENCRYPTED FILE-----";
/// The characters of a line, and the bytes that they stand for.
const COLUMNS: u64 = 64;
const LINE: u64 = 48;
/// How many lines are decoded at a time: a chunk of age's, about.
const BATCH: u64 = 1366;
/// How much white space may stand after the text.
const TAIL: u64 = 1024;

/// The bytes that armor stands for.
pub(super) struct Armored {
    text: Arc<dyn ReadAt>,
    /// Where the first line of base64 begins.
    begin: u64,
    /// The characters that end each line: one, or two on some systems.
    ending: u64,
    len: u64,
}

impl Armored {
    /// Finds the text between the marks.
    ///
    /// # Errors
    /// `Malformed` if there is no end, or lines of another length.
    pub(super) fn new(text: Arc<dyn ReadAt>) -> Result<Self> {
        let broken = |what: &str| Error::malformed(format!("this is no armored age file: {what}"));
        let head = head_of(&*text)?;
        let space = head.len() - head.trim_ascii_start().len();
        let after = head.get(space + BEGIN.len()..).unwrap_or_default();
        let ending = match after {
            [b'\n', ..] => 1,
            [b'\r', b'\n', ..] => 2,
            _ => return Err(broken("its first line has more than the mark")),
        };
        let begin = (space + BEGIN.len()) as u64 + ending;
        let tail_at = text.len().saturating_sub(TAIL);
        let mut tail = vec![0; (text.len() - tail_at) as usize];
        text.read_at(tail_at, &mut tail)?;
        let end = tail.trim_ascii_end();
        let Some(body) = end.strip_suffix(END) else {
            return Err(broken("it has no end").with_hint("the file was cut short: fetch it again"));
        };
        let body = (tail_at + body.len() as u64).checked_sub(begin).ok_or_else(|| broken("it is empty"))?;
        let (lines, rest) = (body / (COLUMNS + ending), body % (COLUMNS + ending));
        // The last line has 4 to 64 characters; of a full one nothing is left over.
        let characters = match rest {
            0 => lines * COLUMNS,
            _ => lines * COLUMNS + rest.checked_sub(ending).ok_or_else(|| broken("its lines are uneven"))?,
        };
        if characters == 0 || characters % 4 != 0 {
            return Err(broken("its lines are uneven"));
        }
        let mut armored = Self { text, begin, ending, len: characters / 4 * 3 };
        let last = (characters - 1) / COLUMNS;
        let mut decoded = [0; LINE as usize];
        let count = armored.decode(last, 1, characters, &mut decoded)?;
        armored.len = last * LINE + count as u64;
        Ok(armored)
    }

    /// Decodes lines; returns the bytes.
    fn decode(&self, first: u64, count: u64, characters: u64, out: &mut [u8]) -> Result<usize> {
        let stride = COLUMNS + self.ending;
        let end = (characters - first * COLUMNS).min(count * COLUMNS);
        // The last line ends as the others do.
        let mut text = vec![0; (end + end.div_ceil(COLUMNS) * self.ending) as usize];
        let at = self.begin + first * stride;
        self.text.read_at(at, &mut text)?;
        let ending: &[u8] = if self.ending == 1 { b"\n" } else { b"\r\n" };
        let mut done = 0;
        for (i, line) in text.chunks(stride as usize).enumerate() {
            let fault = || {
                Error::malformed("a line of the armor is no base64 of 64 characters")
                    .at_offset(at + i as u64 * stride)
            };
            let line = line.strip_suffix(ending).ok_or_else(fault)?;
            let to = out.get_mut(done..).ok_or_else(fault)?;
            done += STANDARD.decode_slice(line, to).map_err(|_| fault())?;
        }
        Ok(done)
    }
}

impl ReadAt for Armored {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, mut buf: &mut [u8]) -> Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(Error::malformed("the armored file ends before what is read").at_offset(offset));
        }
        let characters = self.len.div_ceil(3) * 4;
        let mut at = offset;
        let mut bytes = vec![0; (buf.len() as u64 + 2 * LINE).min(BATCH * LINE) as usize];
        while !buf.is_empty() {
            let (line, within) = (at / LINE, (at % LINE) as usize);
            let lines = (within as u64 + buf.len() as u64).div_ceil(LINE).min(bytes.len() as u64 / LINE);
            let count = self.decode(line, lines, characters, &mut bytes)?;
            let ready = bytes.get(within..count).unwrap_or_default();
            let take = ready.len().min(buf.len());
            // A line in the middle that is padded stands for less than its place.
            if take == 0
                || lines > 1
                    && count as u64 != lines * LINE
                    && (at - within as u64 + count as u64) != self.len
            {
                return Err(Error::malformed("a line of the armor is shorter than the others").at_offset(at));
            }
            let (now, later) = buf.split_at_mut(take);
            now.copy_from_slice(&ready[..take]);
            buf = later;
            at += take as u64;
        }
        Ok(())
    }
}

//! Choices out of a fuzzer's input: numbers, text and bytes, of which there is always another.

/// What is left of the input; after its end everything is zero.
pub struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    /// Takes choices from these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// A number below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        let byte = usize::from(self.byte());
        if end <= 256 { byte % end } else { (byte << 8 | usize::from(self.byte())) % end }
    }

    /// So many bytes of the input, and zeros where it ends.
    pub fn exactly(&mut self, len: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        let mut taken = taken.to_vec();
        taken.resize(len, 0);
        taken
    }

    /// Text of up to so many bytes, as near to UTF-8 as they are.
    pub fn text(&mut self, most: usize) -> String {
        let len = self.below(most + 1);
        String::from_utf8_lossy(&self.exactly(len)).into_owned()
    }

    /// Bytes that may be longer than the input: a part of it, repeated.
    pub fn long(&mut self) -> Vec<u8> {
        let (len, times) = (self.below(40), [1, 1, 1, 3, 50, 400][self.below(6)]);
        self.exactly(len).repeat(times)
    }
}

//! Names of opcodes, as Python's `pickletools` has them.

/// The name of an opcode.
pub(super) fn name(byte: u8) -> Option<&'static str> {
    weighbridge_formats::pickle::opcode_name(byte)
}

/// An opcode in a sentence.
pub(super) fn shown(byte: u8) -> String {
    name(byte).map_or_else(|| format!("the byte {byte:#04x}"), ToOwned::to_owned)
}

//! Any bytes through the pickle machine; what is read is written in every protocol and read again to the same.

use weighbridge_formats::pickle::{EncodeOptions, NoTensors, decode, encode};

/// The target.
pub fn run(bytes: &[u8]) {
    let limits = crate::options().limits;
    let Ok(first) = decode(bytes, &limits) else { return };
    assert!(first.consumed <= bytes.len() as u64);
    let Some(root) = first.values.root() else { panic!("a pickle without a root") };
    for protocol in 2..=5 {
        let options = EncodeOptions { protocol, allow_global: &|_| true, allow_persistent: true };
        let Ok(written) = encode(&first.values, root, &options, &mut NoTensors) else { continue };
        let second = decode(&written, &weighbridge_formats::Limits::default());
        let second = second.unwrap_or_else(|e| panic!("protocol {protocol}: {e:?}"));
        assert_eq!(second.consumed, written.len() as u64);
        assert!(
            crate::same_values(&first.values, &second.values),
            "protocol {protocol}: {:?} became {:?}",
            first.values,
            second.values
        );
    }
}

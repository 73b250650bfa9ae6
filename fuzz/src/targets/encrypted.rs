//! Any bytes as an age file, and as the tar inside of one: no name leads out, and what opens can be read.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::{exhaust, options};
use weighbridge_formats::source::is_plain_relative;
use weighbridge_formats::{Registry, Source};
use weighbridge_trust::encrypt::{
    EncryptOptions, Encrypted, Identities, Recipients, encrypt, generate_identity,
};

struct Place {
    folder: PathBuf,
    recipients: Recipients,
    identities: Identities,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let key = folder.join("key");
        let mut recipients = Recipients::new();
        recipients.add(&generate_identity(&key).expect("a key")).expect("a public key");
        let mut identities = Identities::new();
        identities.add_file(&key, &mut |_| unreachable!()).expect("its secret key");
        Place { folder, recipients, identities }
    })
}

fn read(opened: &Encrypted) {
    let len = opened.reader().len();
    for (name, size) in opened.members() {
        assert!(size <= len);
        assert!(!opened.is_folder() || is_plain_relative(name), "{name:?}");
        let source = opened.source(name).expect("a member");
        let mut head = vec![0; source.len().min(1000) as usize];
        source.reader().read_at(0, &mut head).expect("bytes of a member");
    }
    if let Ok(archive) = opened.archive(&Registry::builtin(), &options()) {
        exhaust(&*archive);
    }
}

/// The target.
pub fn run(bytes: &[u8]) {
    let Place { folder, recipients, identities } = place();
    if let Ok(opened) = Encrypted::from_source(&Source::from_bytes(bytes), Path::new("x.age"), identities) {
        read(&opened);
    }
    let (plain, sealed) = (folder.join("plain"), folder.join("sealed"));
    std::fs::write(&plain, bytes).expect("a file");
    let mut how = EncryptOptions::default();
    how.execute.fsync = false;
    how.execute.overwrite = true;
    encrypt(&plain, &sealed, recipients, &how).expect("any bytes can be encrypted");
    if let Ok(opened) = Encrypted::open(&sealed, identities) {
        if !opened.is_folder() {
            let mut back = vec![0; bytes.len()];
            opened.reader().read_at(0, &mut back).expect("the bytes");
            assert_eq!(back, bytes);
        }
        read(&opened);
    }
}

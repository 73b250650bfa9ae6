//! Containers that hold one stream or a plain row of members: compressed files, tar, `.npy`; and those that are named
//! and not opened.

use std::sync::Arc;

use weighbridge_formats::{Error, ReadAt, Result, Source};

use super::report::Verdict;
use super::subject::{Role, Sink, Subject};
use super::unpack::Packing;

/// A compressed file, whose content is looked at in turn.
pub(super) fn inspect_packed(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let Some(packing) = Packing::of(subject.head) else { return Ok(()) };
    sink.kind(packing.name());
    let role = match (packing.is_weak(), subject.role) {
        (true, _) | (_, Role::Guess) => Role::Guess,
        _ => Role::Anything,
    };
    // A name goes with what is inside: model.pkl.gz is a pickle.
    let name = subject.name.rsplit_once('.').map_or(subject.name, |(name, _)| name);
    sink.nested_packed(role, name, subject.source.clone(), subject.inside(packing.name()), packing);
    Ok(())
}

/// The mark of a tar archive, at its place in the first header.
pub(super) fn is_tar(head: &[u8]) -> bool {
    head.get(257..262) == Some(b"ustar") || is_old_tar(head)
}

/// A header without a mark, as tar had them first: its checksum tells.
fn is_old_tar(head: &[u8]) -> bool {
    head.len() >= 512 && head[0] != 0 && tar_sum(&head[..512])
}

fn tar_sum(header: &[u8]) -> bool {
    let Some(said) = octal(&header[148..156]) else { return false };
    let sum = |from: usize, to: usize| header[from..to].iter().map(|b| u64::from(*b)).sum::<u64>();
    said > 0 && said == sum(0, 148) + 8 * 32 + sum(156, 512)
}

/// A number in octal digits, or in binary where the first bit is set.
fn octal(field: &[u8]) -> Option<u64> {
    if field.first()? & 0x80 != 0 {
        let mut rest = field.iter().skip(1);
        return rest.try_fold(0u64, |n, b| n.checked_mul(256)?.checked_add(u64::from(*b)));
    }
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, 8).ok() }
}

/// The longest name that a header of its own may give.
const LONGEST_NAME: u64 = 64 << 10;

/// A tar archive: every member, whatever its kind.
pub(super) fn inspect_tar(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let (reader, end) = (subject.source.reader(), subject.source.len());
    let (mut at, mut long_name) = (0u64, None::<String>);
    let mut header = [0; 512];
    while at.checked_add(512).is_some_and(|next| next <= end) {
        reader.read_at(at, &mut header)?;
        if header.iter().all(|b| *b == 0) {
            at += 512;
            break;
        }
        let size = octal(&header[124..136]).filter(|_| tar_sum(&header));
        let Some(size) = size.filter(|size| size.checked_add(at + 512).is_some_and(|last| last <= end))
        else {
            let what = "a header of the tar archive is malformed, or its member passes the end";
            sink.finding(subject.finding("archive-lies", Verdict::Unknown, what).at(at));
            break;
        };
        let content = at + 512;
        let next = content.saturating_add(size.div_ceil(512).saturating_mul(512));
        match header[156] {
            // A long name (GNU) or settings (POSIX) for the member that comes next.
            b'L' | b'x' | b'g' => {
                let bytes = read(reader, content, size.min(LONGEST_NAME))?;
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let path = text.lines().find_map(|l| l.split_once(" path=").map(|(_, path)| path.to_owned()));
                match header[156] {
                    b'L' => long_name = Some(text.trim_end_matches('\0').to_owned()),
                    b'x' => long_name = path.or(long_name),
                    _ => {}
                }
            }
            kind => {
                let short = |field: &[u8]| {
                    let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
                    String::from_utf8_lossy(&field[..end]).into_owned()
                };
                let prefix =
                    if &header[257..263] == b"ustar\0" { short(&header[345..500]) } else { String::new() };
                let mut name = long_name.take().unwrap_or_else(|| short(&header[..100]));
                if !prefix.is_empty() {
                    name = format!("{prefix}/{name}");
                }
                check_name(subject, sink, &name, at);
                if matches!(kind, b'1' | b'2') {
                    let target = short(&header[157..257]);
                    if leads_out(&name, &target, kind == b'2') {
                        let what =
                            format!("the member {name:?} is a link to {target:?}, outside of the archive");
                        sink.finding(subject.finding("path-escape", Verdict::Dangerous, what).at(at));
                    }
                } else if matches!(kind, b'3' | b'4' | b'6') {
                    let what = format!("the member {name:?} is a device or pipe");
                    sink.finding(subject.finding("path-escape", Verdict::Dangerous, what).at(at));
                } else if size > 0 {
                    let source = Source::from_reader(Arc::new(subject.source.slice(content, size)?));
                    if !sink.nested(&*name, source, subject.inside(&*name)) {
                        return Ok(());
                    }
                }
            }
        }
        at = next;
    }
    super::pickle::search(subject, sink, at.min(end), end)
}

/// The most members that are gone through to find one.
const SOUGHT: usize = 100_000;

/// Whether a tar has a file whose bytes begin here and reach so far.
pub(super) fn has_member(source: &Source, begin: u64, end: u64) -> bool {
    let (reader, mut at, mut header) = (source.reader(), 0u64, [0; 512]);
    for _ in 0..SOUGHT {
        if at.saturating_add(512) > begin || reader.read_at(at, &mut header).is_err() || !tar_sum(&header) {
            return false;
        }
        let (content, Some(size)) = (at + 512, octal(&header[124..136])) else { return false };
        if content == begin {
            return matches!(header[156], 0 | b'0') && content.saturating_add(size) >= end;
        }
        let Some(next) = size.div_ceil(512).checked_mul(512).and_then(|n| n.checked_add(content)) else {
            return false;
        };
        at = next;
    }
    false
}

/// Whether a link of a member leads out of the archive.
fn leads_out(name: &str, target: &str, symbolic: bool) -> bool {
    if target.starts_with('/') {
        return true;
    }
    // A symbolic link counts from its own folder, a hard one from the archive's root.
    let mut depth =
        if symbolic { name.split('/').filter(|p| !matches!(*p, "" | ".")).count() as i64 - 1 } else { 0 };
    target.split('/').any(|part| {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        depth < 0
    })
}

/// A name that leads out of the place where it is unpacked is a finding.
pub(super) fn check_name(subject: &Subject<'_>, sink: &mut Sink<'_>, name: &str, at: u64) {
    let drive = name.as_bytes().get(1) == Some(&b':');
    let out = name.starts_with(['/', '\\']) || drive || name.split(['/', '\\']).any(|part| part == "..");
    if out || name.contains('\0') {
        let what = format!("the member {name:?} would lie outside of the archive's folder");
        sink.finding(subject.finding("path-escape", Verdict::Dangerous, what).at(at));
    }
}

fn read(reader: &Arc<dyn ReadAt>, at: u64, length: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| Error::limit("too long"))?];
    reader.read_at(at, &mut bytes)?;
    Ok(bytes)
}

/// A NumPy array in a file: of objects, it is a pickle.
pub(super) fn inspect_npy(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    let head = subject.head;
    let (from, length) = match head.get(6) {
        Some(1) => (10, head.get(8..10).map(|b| u64::from(u16::from_le_bytes([b[0], b[1]])))),
        Some(2 | 3) => (12, head.get(8..12).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])))),
        _ => (0, None),
    };
    let Some(length) = length.filter(|length| from + length <= subject.source.len()) else {
        return Err(Error::malformed("the header of the array is cut off or of an unknown version"));
    };
    if length > 1 << 20 {
        return Err(Error::limit(format!("the array has a header of {length} bytes")));
    }
    let header = read(subject.source.reader(), from, length)?;
    // Spaces and either quote are the same to who reads it.
    let text: String = String::from_utf8_lossy(&header).chars().filter(|c| !c.is_whitespace()).collect();
    let text = text.replace('"', "'");
    let (content, end) = (from + length, subject.source.len());
    // Outside of strings, a header has numbers, brackets and constants.
    let bare: String = text.split('\'').step_by(2).collect();
    let word = bare.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && !matches!(*word, "True" | "False" | "None" | "L")
    });
    if let Some(word) = word {
        let what = format!("the header of the array has {word:?}, which is nothing that a header holds");
        sink.finding(subject.finding("unreadable", Verdict::Unknown, what).at(from));
    }
    let field = |name: &str| text.split_once(&format!("'{name}':")).map(|(_, rest)| rest.trim_start());
    let shape = field("shape").and_then(|rest| rest.strip_prefix('(')?.split_once(')')).map(|(dims, _)| dims);
    let elements = shape.and_then(|dims| {
        let mut dims = dims.split(',').map(str::trim).filter(|d| !d.is_empty());
        dims.try_fold(1u64, |n, dim| n.checked_mul(dim.trim_end_matches('L').parse().ok()?))
    });
    let code =
        field("descr").and_then(|rest| rest.strip_prefix('\'')?.split_once('\'')).map(|(code, _)| code);
    let objects = text.split('\'').any(|code| {
        code.trim_start_matches(['|', '<', '>', '=']).ends_with('O')
            || code.starts_with("object")
            || code == "O8"
    });
    let Some(elements) = elements else {
        return Err(Error::malformed("the header of the array has no shape, or one that no array has"));
    };
    if objects && content < end {
        sink.kind("objects");
        let source = Source::from_reader(Arc::new(subject.source.slice(content, end - content)?));
        sink.nested_as(Role::Pickle, subject.name, source, subject.inside("objects"));
        return Ok(());
    }
    // What stands behind the elements is read by whoever loads a second array from the same file.
    let size = code.and_then(|code| {
        let code = code.trim_start_matches(['|', '<', '>', '=']);
        let (kind, digits) = code.split_at_checked(1)?;
        let digits = digits.split('[').next().unwrap_or_default();
        let count: u64 = digits.parse().ok()?;
        Some(if kind == "U" { count.checked_mul(4)? } else { count })
    });
    let Some(bytes) = size.and_then(|size| size.checked_mul(elements)) else { return Ok(()) };
    match content.checked_add(bytes).filter(|last| *last <= end) {
        None => Err(Error::malformed(format!(
            "the array has {elements} elements, and {} bytes are there",
            end - content
        ))),
        Some(last) if last < end => super::pickle::search(subject, sink, last, end),
        Some(_) => Ok(()),
    }
}

/// Archives that are named and not opened, by their marks.
static UNREAD: &[(&[u8], &str)] = &[
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x5d\0\0\x80\0\xff\xff\xff", "an LZMA archive"),
    (b"MSCF", "a cabinet archive"),
    (b"!<arch>\n", "an ar archive"),
    (b"hsqs", "a SquashFS image"),
    (b"xar!", "a xar archive"),
    (b"LZIP", "an lzip stream"),
    (b"\x1f\x9d", "a compress stream"),
    (b"\x1f\xa0", "a compress stream"),
    (b"ARC1", "an archive"),
    (b"X\n\0\0\0\x02", "an object of R, whose promises run when it is read"),
    (b"X\n\0\0\0\x03", "an object of R, whose promises run when it is read"),
    (b"A\n2\n", "an object of R, whose promises run when it is read"),
    (b"A\n3\n", "an object of R, whose promises run when it is read"),
    (b"RDX2\n", "a workspace of R, whose promises run when it is read"),
    (b"RDX3\n", "a workspace of R, whose promises run when it is read"),
    (b"RDA2\n", "a workspace of R, whose promises run when it is read"),
    (b"RDA3\n", "a workspace of R, whose promises run when it is read"),
    (b"\xac\xed\0\x05", "an object of Java, which builds classes when it is read"),
];

/// Encrypted files, by their marks.
static ENCRYPTED: &[(&[u8], &str)] = &[
    (b"age-encryption.org/", "a file encrypted by age"),
    (b"-----BEGIN AGE ENCRYPTED FILE-----", "a file encrypted by age"),
    (b"-----BEGIN PGP MESSAGE-----", "a file encrypted by PGP"),
    (b"Salted__", "a file encrypted by openssl"),
];

pub(super) fn is_encrypted(head: &[u8]) -> bool {
    ENCRYPTED.iter().any(|(mark, _)| head.starts_with(mark))
}

/// Says that nothing is seen of what is encrypted.
pub(super) fn refuse_encrypted(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if let Some((_, name)) = ENCRYPTED.iter().find(|(mark, _)| subject.head.starts_with(mark)) {
        let what = format!("this is {name}; what is inside was not looked at");
        let mut finding = subject.finding("archive-encrypted", Verdict::Unknown, what);
        finding.fix = match name.ends_with("age") {
            true => {
                "give the key, and what is inside is looked at: `weighbridge scan FILE -i KEY`".to_owned()
            }
            false => "decrypt it with the tool that made it and scan what comes out".to_owned(),
        };
        sink.finding(finding);
    }
    Ok(())
}

pub(super) fn is_unread(head: &[u8]) -> bool {
    // LZMA's own mark is read where it can be.
    UNREAD.iter().any(|(mark, _)| mark[0] != 0x5d && head.starts_with(mark))
}

/// Says what an archive is that nobody here opens.
pub(super) fn refuse(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if let Some((_, name)) = UNREAD.iter().find(|(mark, _)| subject.head.starts_with(mark)) {
        let what = format!("this is {name}; it is not opened here");
        sink.finding(subject.finding("archive-unread", Verdict::Unknown, what));
    }
    Ok(())
}

/// Programs and libraries, by their marks: ELF, PE, Mach-O, WebAssembly, Java, compiled Python.
pub(super) fn executable(subject: &Subject<'_>) -> Option<&'static str> {
    let head = subject.head;
    let name = match head {
        [0x7f, b'E', b'L', b'F', ..] => "a program or library (ELF)",
        [b'M', b'Z', ..] if is_windows(subject) => "a program or library (PE)",
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf | 0xce, ..] => {
            "a program or library (Mach-O)"
        }
        [0xca, 0xfe, 0xba, 0xbe, ..] => "a program or library (Mach-O or Java)",
        [0, b'a', b's', b'm', 1, ..] => "a WebAssembly module",
        [_, _, b'\r', b'\n', ..] if subject.has_extension(&["pyc", "pyo"]) => "compiled Python",
        [b'#', b'!', b'/' | b' ', ..] => "a script",
        _ if subject.has_extension(&["whl", "egg"]) => "a package of Python, which its installer runs",
        _ if subject.has_extension(&["pth"]) && is_site_hook(head) => {
            "a file of paths that runs when Python starts"
        }
        _ => return None,
    };
    Some(name)
}

/// Two letters are a weak mark: the header that they point to, or the name, must speak for it too.
fn is_windows(subject: &Subject<'_>) -> bool {
    subject.head.windows(4).any(|w| w == b"PE\0\0")
        || subject.head.get(2..64).is_some_and(|rest| memchr::memmem::find(rest, &[0; 8]).is_some())
        || subject.has_extension(&["exe", "dll", "pyd"])
}

/// A `.pth` file of Python's `site`, whose lines that begin with `import` are run.
fn is_site_hook(head: &[u8]) -> bool {
    std::str::from_utf8(head)
        .is_ok_and(|text| text.lines().any(|l| l.starts_with("import ") || l.starts_with("import\t")))
}

/// Says what a program among a model's files is.
pub(super) fn inspect_executable(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if let Some(name) = executable(subject) {
        let what = format!("this is {name}");
        sink.finding(subject.finding("executable", Verdict::Unknown, what));
    }
    Ok(())
}

/// What stands where a model should, and is none: a pointer of Git LFS, a page.
pub(super) fn stand_in(subject: &Subject<'_>) -> Option<&'static str> {
    let weights = subject.has_extension(&[
        "bin",
        "pt",
        "pth",
        "ckpt",
        "safetensors",
        "onnx",
        "gguf",
        "h5",
        "keras",
        "pkl",
        "pickle",
        "joblib",
        "npy",
        "npz",
        "pb",
        "tflite",
        "mar",
        "nemo",
        "zip",
        "tar",
        "gz",
        "model",
        "msgpack",
    ]);
    let head = subject.head.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(subject.head).trim_ascii_start();
    if head.starts_with(b"version https://git-lfs.github.com/spec/") {
        return Some("a Git LFS pointer, which stands for a file that was not fetched");
    }
    if weights && subject.role == Role::Anything {
        if subject.source.len() == 0 && subject.place.members.is_empty() {
            return Some("an empty file");
        }
        if subject.head.len() > 16 && subject.head.iter().all(|b| *b == 0) && subject.place.members.is_empty()
        {
            return Some("a file of zeros, as a download leaves that was never filled");
        }
        if head.starts_with(b"{\"") && std::str::from_utf8(subject.head).is_ok() {
            return Some("a JSON document, as a server sends in place of a model");
        }
    }
    let lower: Vec<u8> = head.iter().take(64).map(u8::to_ascii_lowercase).collect();
    let page = [&b"<!doctype html"[..], b"<html", b"<head", b"<?xml", b"<error"]
        .iter()
        .any(|m| lower.starts_with(m));
    (weights && page).then_some("a page, which was saved in place of the model")
}

/// Says what stands there.
pub(super) fn inspect_stand_in(subject: &Subject<'_>, sink: &mut Sink<'_>) -> Result<()> {
    if let Some(name) = stand_in(subject) {
        sink.finding(subject.finding("not-a-model", Verdict::Unknown, format!("this is {name}")));
    }
    Ok(())
}

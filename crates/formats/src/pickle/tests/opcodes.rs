//! What each group of opcodes does, where no sample of Python's own shows it.

use super::{malformed, read, refused};
use crate::ErrorKind;

#[test]
fn persistent_ids() {
    assert_eq!(read(b"Pkey 0\n."), "persistent \"key 0\"");
    assert_eq!(read(b"\x80\x02(X\x01\x00\x00\x00aK\x01tQ."), "persistent (\"a\", 1,)");
}

#[test]
fn extension_codes() {
    assert_eq!(read(b"\x80\x02\x82\x07."), "extension None7 items[]".replace("None7", "None, 7"));
    assert_eq!(read(b"\x80\x02\x83\x00\x01."), "extension None, 256 items[]");
    assert_eq!(read(b"\x80\x02\x84\x00\x00\x01\x00."), "extension None, 65536 items[]");
    malformed(b"\x80\x02\x82\x00.", "EXT1 has a code that is not positive");
    malformed(b"\x80\x02\x84\xff\xff\xff\xff.", "EXT4");
}

#[test]
fn out_of_band_buffers_are_refused_by_name() {
    for (bytes, name) in [(b"\x80\x05\x97.", "NEXT_BUFFER"), (b"\x80\x05\x98.", "READONLY_BUFFER")] {
        let error = refused(bytes);
        assert_eq!((error.kind(), error.offset()), (ErrorKind::Unsupported, Some(2)));
        assert!(error.message().contains(name));
    }
}

#[test]
fn python_2_strings() {
    // Python 2: pickle.dumps(['caf\xc3\xa9', '\xff'], 1), and the same of protocol 0
    assert_eq!(read(b"(U\x05caf\xc3\xa9T\x01\x00\x00\x00\xffl."), "[\"café\", b:ff]");
    assert_eq!(read(b"(lS'caf\\xc3\\xa9'\naS\"\\xff\"\na."), "[\"café\", b:ff]");
    malformed(b"T\xff\xff\xff\xff.", "BINSTRING has a negative length");
    malformed(b"S'a\n.", "STRING is not quoted");
}

#[test]
fn inst_and_obj() {
    assert_eq!(read(b"(K\x01K\x02iosome.mod\nCls\n."), "call osome.mod.Cls, (1, 2,) items[]");
    assert_eq!(read(b"(cmod\nCls\nK\x05o."), "call mod.Cls, (5,) items[]");
    assert_eq!(read(b"(cmod\nCls\no0N."), "None");
    malformed(b"(o.", "OBJ has no class");
}

#[test]
fn dict_list_pop_dup() {
    assert_eq!(read(b"(K\x01K\x02d."), "{1: 2}");
    assert_eq!(read(b"(K\x01K\x02l."), "[1, 2]");
    assert_eq!(read(b"K\x012\x86."), "(1, 1,)");
    assert_eq!(read(b"K\x01K\x020."), "1");
    assert_eq!(read(b"K\x01(0."), "1");
    assert_eq!(read(b"K\x01(K\x02K\x031."), "1");
    malformed(b"(K\x01d.", "DICT finds a key without a value");
    malformed(b"0.", "POP needs more items");
    malformed(b"K\x01(2.", "DUP needs more items");
    malformed(b"K\x011.", "POP_MARK finds no MARK");
}

#[test]
fn globals_calls_and_state() {
    assert_eq!(read(b"cos\nsystem\n(X\x02\x00\x00\x00lstR."), "call os.system, (\"ls\",) items[]");
    assert_eq!(read(b"\x80\x04\x8c\x02os\x8c\x06system\x93."), "os.system");
    assert_eq!(read(b"\x80\x04\x8c\x03pkg\x8c\x03a.b\x93."), "pkg.a.b");
    assert_eq!(read(b"\x80\x02cm\nC\n)\x81}b."), "new m.C, () state {} items[]");
    assert_eq!(read(b"\x80\x04cm\nC\n)}\x92."), "newex m.C, () kwargs {} items[]");
    // A second BUILD keeps both states.
    assert_eq!(read(b"\x80\x02cm\nC\n)\x81K\x01bK\x02b."), "new m.C, () state [1, 2] items[]");
    assert_eq!(read(b"\x80\x02}K\x01bK\x02b."), "{}@[1, 2]");
    assert_eq!(
        read(b"\x80\x02cm\nC\n)R(K\x01K\x02eK\x03aK\x04K\x05s."),
        "call m.C, () items[1, 2, 3] {4, 5}"
    );
    assert_eq!(read(b"\x80\x04cm\nC\n)R(K\x01\x90."), "call m.C, () items[1]");
    malformed(b"\x80\x04K\x01K\x02\x93.", "STACK_GLOBAL has a module or name that is no string");
    malformed(b"cos\nsys\0tem\n.", "GLOBAL has a NUL");
    malformed(b"c\nname\n.", "GLOBAL has an empty name");
    malformed(b"c\xff\nname\n.", "GLOBAL has a name that is not UTF-8");
    malformed(b"K\x01}b.", "BUILD sets the state of what is neither");
    malformed(b"cm\nC\n}b.", "BUILD sets the state of what is neither");
}

#[test]
fn wrong_targets() {
    malformed(b"]K\x01K\x02s.", "SETITEM sets items of what is neither a dict nor an object");
    malformed(b"](K\x01K\x02u.", "SETITEMS");
    malformed(b"}K\x01a.", "APPEND adds to what is neither a list nor an object");
    malformed(b")(K\x01e.", "APPENDS");
    malformed(b"\x80\x04](K\x01\x90.", "ADDITEMS adds to what is neither a set nor an object");
    malformed(b"](K\x01a.", "APPEND finds no container below");
    malformed(b"(K\x01e.", "APPENDS finds no container");
}

#[test]
fn forms_of_plain_values() {
    // Python 2.7: pickle.dumps(OrderedDict([('a', 1)]), 2)
    let ordered = b"\x80\x02ccollections\nOrderedDict\nq\x00]q\x01]q\x02(U\x01aq\x03K\x01ea\x85q\x04Rq\x05.";
    assert_eq!(read(ordered), "ordered{\"a\": 1}");
    assert_eq!(read(b"\x80\x02ccollections\nOrderedDict\n)\x81K\x01K\x02s."), "ordered{1: 2}");
    // class C: pass; o = C(); o.x = 1; pickle.dumps(o, 0) in Python 2 and 3
    let old = b"ccopy_reg\n_reconstructor\np0\n(c__main__\nC\np1\nc__builtin__\nobject\np2\nNtp3\nRp4\n\
                (dp5\nS'x'\np6\nI1\nsb.";
    assert_eq!(read(old), "new __main__.C, () state {\"x\": 1} items[]");
    let new = b"\x80\x04cm\nC\nK\x01\x86\x8c\x07copyreg\x8c\x0a__newobj__\x93\x8c\x00000R.";
    assert!(refused(new).message().contains("REDUCE"));
    assert_eq!(read(b"ccopyreg\n__newobj__\n(cm\nC\nK\x01tR."), "new m.C, (1,) items[]");
    assert_eq!(read(b"ccopyreg\n__newobj_ex__\n(cm\nC\n)}tR."), "newex m.C, () kwargs {} items[]");
    // Arguments that no pickler writes leave a call a call.
    assert_eq!(read(b"cbuiltins\nset\n(K\x01tR."), "call builtins.set, (1,) items[]");
    assert_eq!(
        read(b"ccollections\nOrderedDict\n(](K\x01etR."),
        "call collections.OrderedDict, ([1],) items[]"
    );
    assert_eq!(
        read("c_codecs\nencode\n(V\\u20ac\nVlatin1\ntR.".as_bytes()),
        "call _codecs.encode, (\"€\", \"latin1\",) items[]"
    );
    // set has no such argument in a tuple of its own kind
    assert_eq!(read(b"cbuiltins\nset\n]R."), "call builtins.set, [] items[]");
}

#[test]
fn repeated_keys() {
    assert_eq!(read(b"}(K\x01K\x0aK\x02K\x0bK\x01K\x0cu."), "{1: 12, 2: 11}");
    // 1 == True == 1.0, and text is equal by content
    assert_eq!(read(b"}(K\x01NI01\nNF1.0\nK\x05u."), "{1: 5}");
    assert_eq!(read(b"}(Va\nK\x01X\x01\0\0\0aK\x02u."), "{\"a\": 2}");
    assert_eq!(read(b"}(K\x01Va\n\x86K\x01K\x01Va\n\x86K\x02u."), "{(1, \"a\",): 2}");
    // nan is not itself, unless it is the same object
    assert_eq!(read(b"}(Fnan\nK\x01Fnan\nK\x02u."), "{f:7ff8000000000000: 1, f:7ff8000000000000: 2}");
    assert_eq!(read(b"\x80\x04\x8f(K\x01K\x02K\x01\x90."), "set[1, 2]");
    // two lists are two keys, however much alike
    assert_eq!(read(b"}(]N]Nu."), "{[]: None, []: None}");
}

#[test]
fn memo() {
    assert_eq!(read(b"K\x01p7\n0g7\n."), "1");
    assert_eq!(read(b"K\x01r\xff\xff\xff\xff0j\xff\xff\xff\xff."), "1");
    // MEMOIZE takes the number of entries so far, whatever their indices
    assert_eq!(read(b"\x80\x04K\x01q\x05K\x02\x940h\x01\x86."), "(1, 2,)");
    // the map and the vector are one memo: 3 goes to the map, then the vector grows past it
    assert_eq!(read(b"K\x01q\x03K\x02q\x00K\x03q\x01K\x04q\x02K\x05q\x03K\x06q\x04h\x03\x85."), "(5,)");
    malformed(b"h\x00.", "BINGET asks for memo entry 0, which was never put");
    malformed(b"q\x00.", "BINPUT needs more items");
    malformed(b"K\x01p-1\n.", "PUT has no memo index");
    malformed(b"gx\n.", "GET has no memo index");
}

#[test]
fn frames() {
    assert_eq!(read(b"\x80\x04\x95\x02\0\0\0\0\0\0\0K\x01."), "1");
    malformed(b"\x80\x04\x95\x01\0\0\0\0\0\0\0K\x01.", "BININT1 crosses the end of its frame");
    malformed(b"\x80\x04\x95\xff\0\0\0\0\0\0\0K\x01.", "FRAME needs more bytes");
    malformed(b"\x80\x04\x95\x0a\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N.", "FRAME begins inside another frame");
}

#[test]
fn the_end() {
    malformed(b"", "ends without STOP");
    malformed(b"N", "ends without STOP");
    malformed(b".", "STOP needs more items");
    malformed(b"N(.", "STOP needs more items");
    malformed(b"\xff.", "0xff is no pickle opcode");
    let error = refused(b"\x80\x06N.");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    // What stands behind STOP belongs to somebody else.
    let two = super::decode(b"K\x01.K\x02.", &crate::Limits::default()).unwrap();
    assert_eq!(two.consumed, 3);
}

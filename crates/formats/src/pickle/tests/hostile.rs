//! Broken and hostile pickles: no panic, time and memory in proportion to the input, a clear answer.

use std::time::{Duration, Instant};

use super::super::decode;
use super::{malformed, refused, samples::SAMPLES};
use crate::{ErrorKind, Limits, Value};

/// Small bounds, so that what a mutation makes is bounded too.
/// What a file of a million levels or keys takes.
fn roomy() -> Limits {
    Limits { depth: 1 << 20, ..Limits::within(1 << 30) }
}

fn limits() -> Limits {
    Limits { values: 100_000, header_bytes: 1 << 20, ..Limits::default() }
}

/// `bytes` repeated.
fn times(bytes: &[u8], n: usize) -> Vec<u8> {
    bytes.repeat(n)
}

#[test]
fn a_million_levels() {
    for (open, close) in [(&b"("[..], &b"t"[..]), (b"]", b"a"), (b"N", b"\x85"), (b"cm\nC\n", b"\x85R")] {
        let pickle = [times(open, 1_000_000), b"N".to_vec(), times(close, 1_000_000), b".".to_vec()].concat();
        let decoded = decode(&pickle, &roomy()).unwrap();
        let root = decoded.values.root().unwrap();
        assert!(decoded.values.reachable(root).len() > 1);
    }
    let error = refused(&times(b"(", 1_000_000));
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    let error = refused(&times(b"(", 30_000));
    assert_eq!(error.kind(), ErrorKind::Malformed);
}

#[test]
fn lengths_past_the_end() {
    for (bytes, name) in [
        (&b"X\xff\xff\xff\x7f0123456789"[..], "BINUNICODE"),
        (b"B\xff\xff\xff\xff0123456789", "BINBYTES"),
        (b"T\xff\xff\xff\x7f0123456789", "BINSTRING"),
        (b"\x8b\xff\xff\xff\x7f0123456789", "LONG4"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff0123456789", "BINUNICODE8"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f0123456789", "BINBYTES8"),
        (b"\x96\xff\xff\xff\xff\xff\xff\xff\xff0123456789", "BYTEARRAY8"),
        (b"\x95\xff\xff\xff\xff\xff\xff\xff\xff0123456789", "FRAME"),
        (b"\x8c\x0b0123456789", "SHORT_BINUNICODE"),
        (b"V0123456789", "UNICODE"),
    ] {
        malformed(bytes, &format!("{name} needs more bytes than are left"));
    }
    malformed(b"\x8b\0\0\0\x80.", "LONG4 has a negative length");
}

#[test]
fn a_memo_bomb_stays_small() {
    // Each level is a list that holds the level below twice; 2**1000 elements if it were spread out.
    let mut bomb = b"]q\x00".to_vec();
    for _ in 0..1000 {
        bomb.extend(b"](h\x00h\x00eq\x00");
    }
    bomb.push(b'.');
    let decoded = decode(&bomb, &Limits::default()).unwrap();
    assert_eq!(decoded.values.len(), 1001);
}

#[test]
fn cycles() {
    // a = []; a.append(a); pickle.dumps(a, 2)
    assert_eq!(super::read(b"\x80\x02]q\x00h\x00a."), "[<up 0>]");
    // t = ([],); t[0].append(t); pickle.dumps(t, 2)
    assert_eq!(super::read(b"\x80\x02]q\x00h\x00\x85q\x01a0h\x01."), "([<up 1>],)");
    // A dict that is its own key and state.
    assert_eq!(super::read(b"}q\x00h\x00h\x00sh\x00b."), "{<up 0>: <up 0>}@<up 0>");
}

#[test]
fn copies_cannot_multiply() {
    let many = [b"](".to_vec(), times(b"N", 100_000), b"eq\x00".to_vec()].concat();
    let text = [b"X\xa0\x86\x01\0".to_vec(), times(b"a", 100_000), b"q\x00".to_vec()].concat();
    let dict = [b"}(".to_vec(), times(b"NN", 100_000), b"uq\x00".to_vec()].concat();
    for (head, call) in [
        (&many, &b"cbuiltins\nset\nh\x00\x85R"[..]),
        (&many, b"cbuiltins\nfrozenset\nh\x00\x85R"),
        (&many, b"ccollections\nOrderedDict\nh\x00\x85R"),
        (&dict, b"ccollections\nCounter\nh\x00\x85R"),
        (&text, b"c_codecs\nencode\nh\x00Vlatin1\n\x86R"),
    ] {
        let pickle = [head.clone(), times(call, 100_000), b".".to_vec()].concat();
        assert_eq!(refused(&pickle).kind(), ErrorKind::LimitExceeded);
    }
}

#[test]
fn names_are_bounded() {
    let long = [b"c".to_vec(), times(b"a", 5000), b"\nb\n.".to_vec()].concat();
    assert_eq!(refused(&long).kind(), ErrorKind::LimitExceeded);
    let digits = [b"I".to_vec(), times(b"9", 5000), b"\n.".to_vec()].concat();
    assert_eq!(refused(&digits).kind(), ErrorKind::LimitExceeded);
}

#[test]
fn limits_hold() {
    let pickle = [b"(".to_vec(), times(b"]", 1000), b"t.".to_vec()].concat();
    let few = Limits { values: 1000, ..Limits::default() };
    assert_eq!(decode(&pickle, &few).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(decode(&pickle, &Limits { values: 1001, ..Limits::default() }).is_ok());
    let short = Limits { header_bytes: 1002, ..Limits::default() };
    assert_eq!(decode(&pickle, &short).unwrap_err().kind(), ErrorKind::LimitExceeded);
    assert!(decode(&pickle, &Limits { header_bytes: 1003, ..Limits::default() }).is_ok());
}

#[test]
fn a_memo_index_costs_no_space() {
    let mut pickle = b"N".to_vec();
    for i in 0..1000u32 {
        pickle.push(b'r');
        pickle.extend((u32::MAX - i * 4_000_000).to_le_bytes());
    }
    pickle.push(b'.');
    let start = Instant::now();
    decode(&pickle, &roomy()).unwrap();
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_million_keys_in_linear_time() {
    let mut pickle = b"}(".to_vec();
    // A million keys, each twice, the second time backwards, so that nothing is in order.
    for i in (0..1_000_000u32).chain((0..1_000_000).rev()) {
        pickle.extend([0x8c, 7]);
        pickle.extend(format!("{i:07}").as_bytes());
        pickle.push(b'N');
    }
    pickle.extend(b"u.");
    let start = Instant::now();
    let decoded = decode(&pickle, &roomy()).unwrap();
    // A generous bound for an unoptimised build: pairwise comparison would take hours.
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(decoded.values.dict(decoded.values.root().unwrap()).unwrap().entries.len(), 1_000_000);
}

#[test]
fn truncation_at_every_length() {
    for (expression, _, pickles) in SAMPLES {
        for pickle in pickles {
            for length in 0..pickle.len() {
                let error = decode(&pickle[..length], &limits()).expect_err(expression);
                assert_eq!(error.kind(), ErrorKind::Malformed);
            }
        }
    }
}

#[test]
fn every_flipped_bit() {
    let mut tried = 0u32;
    let mut broken = 0u32;
    for (_, _, pickles) in SAMPLES {
        for pickle in pickles {
            let mut bytes = pickle.to_vec();
            for bit in 0..bytes.len() * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                tried += 1;
                broken += u32::from(bounded(&bytes));
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
    // Most flips break a pickle; some only change a number.
    assert!(tried > 50_000 && broken > tried / 10 && broken < tried);
}

/// Decodes; whether that failed. Whatever happens, memory is in proportion.
fn bounded(bytes: &[u8]) -> bool {
    match decode(bytes, &limits()) {
        Ok(decoded) => {
            assert!(decoded.consumed <= bytes.len() as u64);
            let held: usize = decoded
                .values
                .iter()
                .map(|(_, v)| match v {
                    Value::Str(s) => s.len(),
                    Value::Bytes(b) | Value::ByteArray(b) | Value::BigInt(b) => b.len(),
                    Value::List(v) | Value::Tuple(v) | Value::Set(v) | Value::FrozenSet(v) => v.len(),
                    Value::Dict(d) => d.entries.len(),
                    _ => 1,
                })
                .sum();
            assert!(held <= (1 << 17) + 32 * bytes.len());
            false
        }
        Err(error) => {
            assert!(error.offset().is_some_and(|o| o <= bytes.len() as u64), "{error}");
            true
        }
    }
}

#[test]
fn random_mutations() {
    // xorshift64 from a fixed seed: the same bytes in every run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below.max(1) as u64) as usize
    };
    let pool: Vec<&[u8]> = SAMPLES.iter().flat_map(|(_, _, p)| p.iter().copied()).collect();
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = pool[random(pool.len())].to_vec();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes
                    .insert(at, b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrstu}])\x80\x81\x90\x93\x94"[random(44)]),
                2 if bytes.len() > 1 => {
                    bytes.remove(at);
                }
                3 => {
                    let other = pool[random(pool.len())];
                    let from = random(other.len());
                    let to = (from + random(40)).min(other.len());
                    bytes.splice(at..at, other[from..to].iter().copied());
                }
                _ => bytes.truncate(at + 1),
            }
        }
        read += u32::from(!bounded(&bytes));
    }
    assert!(read > 0 && read < 20_000);
}

#[test]
fn random_bytes() {
    let mut state = 1u64;
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..64)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            })
            .collect();
        bounded(&bytes);
    }
}

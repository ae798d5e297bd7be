//! The bounds, and what is said. Verdicts are held to a real guest's by
//! `tests/replay/test_guest_verdicts.py`.

use super::*;

const END: [u8; 1024] = [0; 1024];

/// An entry of an archive: header, content and padding (ustar; POSIX.1-2017, pax).
fn entry(name: &[u8], content: &[u8], kind: u8, target: &[u8]) -> Vec<u8> {
    let mut block = [0; BLOCK];
    let numbers =
        format!("{:07o}\0{:07o}\0{:07o}\0{:011o}\0{:011o}\0", 0o644, 0, 0, content.len(), 0);
    let fields = [(0, name), (100, numbers.as_bytes()), (157, target), (257, b"ustar\x0000")];
    for (at, field) in fields {
        block[at..at + field.len()].copy_from_slice(field);
    }
    block[156] = kind;
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut entry = [&block, content].concat();
    entry.resize(entry.len().next_multiple_of(BLOCK), 0);
    entry
}

fn file(name: &[u8]) -> Vec<u8> {
    entry(name, b"", b'0', b"")
}

fn fault_within(bounds: Bounds, archive: &[u8]) -> Option<Fault> {
    let mut guest = GuestTar::bounded(bounds);
    guest.update(archive);
    guest.finish(0)
}

fn why(bounds: Bounds, entries: &[Vec<u8>]) -> String {
    fault_within(bounds, &entries.concat()).map_or(String::new(), |fault| fault.why.into_owned())
}

#[test]
fn the_block_is_named_and_no_file() {
    let archive =
        [entry(b"a", b"1", b'0', b""), entry(b"secret", b"", b'1', b"other"), END.to_vec()];
    let why = "leads to what the layer does not have by then".into();
    assert_eq!(fault_within(BOUNDS, &archive.concat()), Some(Fault { block: Some(2), why }));
}

#[test]
fn an_opaque_directory_below_a_file_is_found() {
    let archive = [file(b"a"), file(b"a/b/.wh..wh..opq"), END.to_vec()];
    assert!(why(BOUNDS, &archive).contains("below what is no directory"));
}

#[test]
fn the_first_fault_is_kept() {
    assert!(why(BOUNDS, &[file(b"/a"), b"garbage".repeat(200)]).contains("absolute name"));
}

#[test]
fn the_end_is_judged() {
    for (archive, flags, expected) in [
        (file(b"a"), 2, "has a gzip header with a checksum (FHCRC)"),
        (file(b"a")[..511].to_vec(), 0, "ends early"),
        (entry(b"x", b"11 path=a\n", b'x', b"")[..512].to_vec(), 0, "ends early"),
        (entry(b"x", b"10 path=a\n", b'x', b""), 0, "announces an entry that does not come"),
    ] {
        let mut guest = GuestTar::default();
        guest.update(&archive);
        assert_eq!(guest.finish(flags), Some(Fault { block: None, why: expected.into() }));
    }
}

#[test]
fn no_more_names_are_judged_than_the_bound() {
    let archive = [file(b"a/b/c"), file(b"a/b/d"), file(b"a/b/c"), file(b"e"), END.to_vec()];
    assert_eq!(why(Bounds { names: 5, ..BOUNDS }, &archive), "");
    let found = why(Bounds { names: 4, ..BOUNDS }, &archive);
    assert!(found.ends_with("no more than 4 names are judged"), "{found}");
}

#[test]
fn no_more_entries_are_judged_than_the_bound() {
    let archive = [file(b"a"), END.to_vec(), file(b"a"), file(b"a"), END.to_vec()];
    assert_eq!(why(Bounds { entries: 3, ..BOUNDS }, &archive), "");
    let found = why(Bounds { entries: 2, ..BOUNDS }, &archive);
    assert!(found.ends_with("no more than 2 are judged"), "{found}");
}

/// A link of 4 KiB that leads through forty others costs a guest, and us, for each entry.
#[test]
fn no_more_parts_are_followed_than_the_bound() {
    let bounds = Bounds { steps: 10_000, ..BOUNDS };
    let archive = |entries| {
        let link = entry(b"l", b"", b'2', &b"./".repeat(45));
        [link, file(b"l/a").repeat(entries), END.to_vec()]
    };
    assert_eq!(why(bounds, &archive(200)), "");
    assert!(why(bounds, &archive(300)).contains("take too long to follow"));
}

#[test]
fn no_longer_extension_is_read_than_the_bound() {
    for size in [1 << 20, (1 << 20) + 1] {
        let comment = format!("{size} comment=");
        let content = format!("{comment}{}\n", "x".repeat(size - comment.len() - 1));
        let header = entry(b"x", content.as_bytes(), b'x', b"");
        let found = why(BOUNDS, &[header, file(b"a"), END.to_vec()]);
        assert_eq!(found.is_empty(), size as u64 == MOST_RECORD, "{found}");
    }
}

#[test]
fn a_size_of_all_64_bits_ends_early_and_nothing_overflows() {
    let pax = entry(b"x", b"29 size=18446744073709551615\n", b'x', b"");
    let archive = [pax, file(b"a"), END.to_vec()];
    assert_eq!(why(BOUNDS, &archive), "ends early");
}

#[test]
fn pieces_of_any_length_are_judged_alike() {
    let pax = entry(b"x", b"10 path=a\n", b'x', b"");
    let long = [b"long/".repeat(200), b"name\0".to_vec()].concat();
    let archives = [
        [pax.clone(), file(b"b"), entry(b"l", b"", b'1', b"a"), END.to_vec()].concat(),
        [pax, file(b"b"), entry(b"l", b"", b'1', b"b"), END.to_vec()].concat(),
        [entry(b"x", &long, b'L', b""), entry(b"b", &[1; 700], b'0', b""), file(b"b")].concat(),
        [file(b"a"), file(b"a/b")].concat(),
    ];
    let faults = archives.map(|archive| {
        let whole = fault_within(BOUNDS, &archive);
        for step in [1, 7, 511, 512, 513, 1024] {
            let mut guest = GuestTar::default();
            archive.chunks(step).for_each(|piece| guest.update(piece));
            assert_eq!(guest.finish(0), whole, "in pieces of {step}");
        }
        whole.map(|fault| fault.block)
    });
    assert_eq!(faults, [None, Some(Some(3)), None, Some(Some(1))]);
}

#[test]
fn long_names_and_targets_have_a_bound() {
    let bounds = Bounds { bytes: 1 << 20, ..BOUNDS };
    let link = |n: usize| entry(format!("{n:0100}").as_bytes(), b"", b'2', &[b't'; 100]);
    let few: Vec<_> = (0..5_000).map(link).chain([END.to_vec()]).collect();
    assert_eq!(why(bounds, &few), "");
    let many: Vec<_> = (0..6_000).map(link).collect();
    assert!(why(bounds, &many).ends_with("no more than 1 MiB of names are judged"));
}

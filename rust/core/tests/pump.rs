//! The pump, over files, pipes and sockets, on one thread and on two.

mod oracle;

use std::fs::{self, File};
use std::io::{self, Read, Write, pipe};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use coco_kp_core::{
    CHUNK, Control, Error, Kernel, LayerKey, LayerOpener, LayerSealer, Progress, PumpError, Secret,
    Stop,
};
use oracle::noise;

/// Around the chunks of one thread (64 KiB) and of two (128 KiB), and more than all of these at once.
const LENGTHS: [usize; 14] = [
    0, 1, 63, 64, 65, 65_535, 65_536, 65_537, 131_071, 131_072, 131_073, 262_144, 1_000_000,
    5_000_001,
];

fn keys() -> LayerKey {
    LayerKey {
        key: Secret::copy_from(&[0x42; 32], "key").unwrap(),
        nonce: Secret::copy_from(&[0xff; 16], "nonce").unwrap(),
    }
}

/// A file that nobody else knows, deleted when dropped.
struct Temporary(PathBuf);

impl Temporary {
    fn new(content: &[u8]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pump-{}-{number}", std::process::id()));
        fs::write(&path, content).unwrap();
        Self(path)
    }

    fn open(&self) -> File {
        File::open(&self.0).unwrap()
    }

    fn create(&self) -> File {
        File::create(&self.0).unwrap()
    }

    fn content(&self) -> Vec<u8> {
        fs::read(&self.0).unwrap()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn portable() -> Kernel {
    Kernel::named("portable").unwrap()
}

fn on(threads: usize, progress: &Progress, work: impl FnOnce(Control<'_>)) {
    let check = &mut || Ok(());
    work(Control { limit: None, two_threads: threads == 2, progress, check });
}

/// The same layer without a pump.
fn sealed_in_memory(plaintext: &[u8]) -> (Vec<u8>, [u8; 32]) {
    let mut data = plaintext.to_vec();
    let mut sealer = LayerSealer::new(portable(), keys());
    sealer.update(&mut data);
    (data, sealer.finalize().hmac)
}

#[test]
fn files_of_every_length_both_ways_on_every_kernel() {
    for len in LENGTHS {
        let plaintext = noise(len as u64 + 1, len);
        let (ciphertext, hmac) = sealed_in_memory(&plaintext);
        for kernel in Kernel::available() {
            for threads in [1, 2] {
                let case = format!("{len} bytes, {threads} threads, {}", kernel.name());
                let (source, sealed_file) = (Temporary::new(&plaintext), Temporary::new(b""));
                let progress = Progress::default();
                let mut sealer = LayerSealer::new(kernel, keys());
                on(threads, &progress, |control| {
                    let (src, dst) = (source.open(), sealed_file.create());
                    let pumped = sealer.pump(src.as_fd(), dst.as_fd(), control).unwrap();
                    assert_eq!(pumped, len as u64, "{case}");
                });
                assert_eq!(progress.done(), len as u64, "{case}");
                let sealed = sealer.finalize();
                assert!(sealed_file.content() == ciphertext, "{case}");
                assert_eq!(sealed.hmac, hmac, "{case}");
                assert_eq!(sealed.size, len as u64, "{case}");
                assert_eq!(sealed.plaintext_sha256, oracle::sha256(&plaintext), "{case}");

                let opened_file = Temporary::new(b"");
                let mut opener = LayerOpener::new(kernel, &keys(), hmac);
                on(threads, &Progress::default(), |control| {
                    let (src, dst) = (sealed_file.open(), opened_file.create());
                    opener.pump(src.as_fd(), dst.as_fd(), control).unwrap();
                });
                let opened = opener.finalize().unwrap();
                assert!(opened_file.content() == plaintext, "{case}");
                assert_eq!(opened.plaintext_sha256, sealed.plaintext_sha256, "{case}");
                assert_eq!(opened.ciphertext_sha256, sealed.ciphertext_sha256, "{case}");
            }
        }
    }
}

#[test]
fn no_chunk_of_what_two_threads_pumped_is_made_again() {
    let plaintext = noise(9, CHUNK + 100);
    let (source, target) = (Temporary::new(&plaintext), Temporary::new(b""));
    let mut sealer = LayerSealer::new(portable(), keys());
    on(2, &Progress::default(), |control| {
        let (src, dst) = (source.open(), target.create());
        sealer.pump(src.as_fd(), dst.as_fd(), control).unwrap();
    });
    let mut chunk = plaintext[..CHUNK].to_vec();
    let refused = sealer.repeat(0, &mut chunk);
    assert_eq!(refused, Err(Error::NoSuchChunk), "its input has no marks");
    assert_eq!(chunk, plaintext[..CHUNK]);
}

#[test]
fn pumping_after_an_unfinished_block_goes_on_where_it_was() {
    let plaintext = noise(3, 300_000);
    let (ciphertext, hmac) = sealed_in_memory(&plaintext);
    for (threads, first) in [(1, 100), (2, 100), (2, 128)] {
        let (source, target) = (Temporary::new(&plaintext[first..]), Temporary::new(b""));
        let mut begin = plaintext[..first].to_vec();
        let mut sealer = LayerSealer::new(portable(), keys());
        sealer.update(&mut begin);
        on(threads, &Progress::default(), |control| {
            let (src, dst) = (source.open(), target.create());
            let pumped = sealer.pump(src.as_fd(), dst.as_fd(), control).unwrap();
            assert_eq!(pumped, (plaintext.len() - first) as u64);
        });
        assert_eq!(sealer.finalize().hmac, hmac);
        assert!(target.content() == ciphertext[first..]);
    }
}

/// Short reads, at sizes that fit nothing, from a pipe; short writes into a slow pipe.
#[test]
fn pipes_at_both_ends() {
    let plaintext = noise(4, 700_001);
    let (ciphertext, hmac) = sealed_in_memory(&plaintext);
    for threads in [1, 2] {
        let ((reader, mut feed), (mut drain, writer)) = (pipe().unwrap(), pipe().unwrap());
        let pieces = plaintext.chunks(3001);
        let received = thread::scope(|scope| {
            scope.spawn(move || {
                for piece in pieces {
                    feed.write_all(piece).unwrap();
                }
            });
            let received = scope.spawn(move || {
                let (mut all, mut buffer) = (Vec::new(), [0; 1777]);
                loop {
                    match drain.read(&mut buffer).unwrap() {
                        0 => return all,
                        len => all.extend_from_slice(&buffer[..len]),
                    }
                }
            });
            let mut sealer = LayerSealer::new(portable(), keys());
            on(threads, &Progress::default(), |control| {
                sealer.pump(reader.as_fd(), writer.as_fd(), control).unwrap();
            });
            drop(writer);
            assert_eq!(sealer.finalize().hmac, hmac);
            received.join().unwrap()
        });
        assert!(received == ciphertext);
    }
}

#[test]
fn sockets_are_sources_too() {
    let plaintext = noise(5, 300_000);
    let (ciphertext, _) = sealed_in_memory(&plaintext);
    let (near, mut far) = UnixStream::pair().unwrap();
    let target = Temporary::new(b"");
    thread::scope(|scope| {
        scope.spawn(|| {
            far.write_all(&plaintext).unwrap();
            far.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut sealer = LayerSealer::new(portable(), keys());
        on(2, &Progress::default(), |control| {
            sealer.pump(near.as_fd(), target.create().as_fd(), control).unwrap();
        });
    });
    assert!(target.content() == ciphertext);
}

#[test]
fn a_source_may_be_as_long_as_the_limit_and_no_longer() {
    for (len, limit, fits) in [
        (0, 0, true),
        (1, 0, false),
        (65_536, 65_536, true),
        (65_537, 65_536, false),
        (200_000, 200_000, true),
        (200_000, 300_000, true),
        (200_000, 199_999, false),
        (5_000_000, 64, false),
    ] {
        for two_threads in [false, true] {
            let (source, target) = (Temporary::new(&noise(6, len)), Temporary::new(b""));
            let (progress, check) = (Progress::default(), &mut || Ok(()));
            let control = Control { limit: Some(limit), two_threads, progress: &progress, check };
            let mut sealer = LayerSealer::new(portable(), keys());
            let pumped = sealer.pump(source.open().as_fd(), target.create().as_fd(), control);
            match pumped {
                Ok(pumped) => assert!(fits && pumped == len as u64),
                Err(error) => assert!(!fits && matches!(error, PumpError::TooLong), "{error:?}"),
            }
            assert!(target.content().len() as u64 <= limit, "nothing beyond the limit is written");
        }
    }
}

#[test]
fn an_empty_pipe_can_be_cancelled_and_so_can_a_full_one() {
    for threads in [1, 2] {
        // The shorter layer's last chunk is the one that fits no more.
        for full in [None, Some(100_000), Some(10_000_000)] {
            let ((reader, _feed), (_drain, writer)) = (pipe().unwrap(), pipe().unwrap());
            let source = Temporary::new(&vec![0; full.unwrap_or(0)]);
            let progress = Progress::default();
            thread::scope(|scope| {
                let cancelled = scope.spawn(|| {
                    thread::sleep(Duration::from_millis(50));
                    progress.cancel();
                    Instant::now()
                });
                let mut sealer = LayerSealer::new(portable(), keys());
                on(threads, &progress, |control| {
                    let file = source.open();
                    let src = if full.is_some() { file.as_fd() } else { reader.as_fd() };
                    let error = sealer.pump(src, writer.as_fd(), control).unwrap_err();
                    assert!(matches!(error, PumpError::Cancelled), "{error:?}");
                });
                let late = cancelled.join().unwrap().elapsed();
                // 50 ms are promised; the rest is for machines that are busy with other tests.
                assert!(late < Duration::from_millis(500), "{late:?}");
            });
        }
    }
}

#[test]
fn the_callers_check_stops_a_pump() {
    for two_threads in [false, true] {
        let (source, target) = (Temporary::new(&vec![0; 10_000_000]), Temporary::new(b""));
        let mut checks = 0;
        let check = &mut || {
            checks += 1;
            if checks > 3 { Err(Stop) } else { Ok(()) }
        };
        let control = Control { limit: None, two_threads, progress: &Progress::default(), check };
        let mut sealer = LayerSealer::new(portable(), keys());
        let pumped = sealer.pump(source.open().as_fd(), target.create().as_fd(), control);
        assert!(matches!(pumped, Err(PumpError::Stopped)), "{pumped:?}");
        assert!(target.content().len() < 10_000_000);
    }
}

#[test]
fn a_panic_of_one_thread_ends_the_other() {
    let (_drain, full) = pipe().unwrap();
    let source = Temporary::new(&vec![0; 10_000_000]);
    let mut checks = 0;
    let check = &mut || {
        checks += 1;
        assert!(checks < 20, "the caller's own check is broken");
        Ok(())
    };
    let progress = Progress::default();
    let control = Control { limit: None, two_threads: true, progress: &progress, check };
    let mut sealer = LayerSealer::new(portable(), keys());
    let pumping = AssertUnwindSafe(|| sealer.pump(source.open().as_fd(), full.as_fd(), control));
    assert!(catch_unwind(pumping).is_err());
}

#[test]
fn a_file_is_not_pumped_into_itself() {
    let file = Temporary::new(b"content");
    let target = File::options().write(true).open(&file.0).unwrap();
    on(1, &Progress::default(), |control| {
        let mut sealer = LayerSealer::new(portable(), keys());
        let error = sealer.pump(file.open().as_fd(), target.as_fd(), control).unwrap_err();
        assert!(
            matches!(&error, PumpError::Write(error) if error.kind() == io::ErrorKind::InvalidInput),
            "{error:?}"
        );
    });
    assert_eq!(file.content(), b"content");
}

#[test]
fn a_full_disk_and_a_closed_pipe_are_write_errors() {
    for threads in [1, 2] {
        let source = Temporary::new(&vec![0; 3_000_000]);
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let expected = [
            (full.as_fd(), io::ErrorKind::StorageFull),
            (writer.as_fd(), io::ErrorKind::BrokenPipe),
        ];
        for (dst, kind) in expected {
            let mut sealer = LayerSealer::new(portable(), keys());
            on(threads, &Progress::default(), |control| {
                let error = sealer.pump(source.open().as_fd(), dst, control).unwrap_err();
                assert!(
                    matches!(&error, PumpError::Write(error) if error.kind() == kind),
                    "{error:?}"
                );
            });
        }
    }
}

#[test]
fn a_folder_is_a_read_error() {
    for threads in [1, 2] {
        let (folder, target) = (File::open("/").unwrap(), Temporary::new(b""));
        let mut sealer = LayerSealer::new(portable(), keys());
        on(threads, &Progress::default(), |control| {
            let error = sealer.pump(folder.as_fd(), target.create().as_fd(), control).unwrap_err();
            let is_folder = matches!(&error, PumpError::Read(error) if error.kind() == io::ErrorKind::IsADirectory);
            assert!(is_folder, "{error:?}");
        });
    }
}

/// The file ends where it ends, whatever it was when it was opened.
#[test]
fn a_file_that_shrinks_meanwhile_is_a_shorter_layer_and_kills_nobody() {
    for two_threads in [false, true] {
        let (source, target) = (Temporary::new(&vec![0; 20_000_000]), Temporary::new(b""));
        let shrinking = File::options().write(true).open(&source.0).unwrap();
        let mut shrunk = false;
        let progress = Progress::default();
        let check = &mut || {
            if !shrunk && progress.done() > 500_000 {
                shrinking.set_len(1_000).unwrap();
                shrunk = true;
            }
            Ok(())
        };
        let control = Control { limit: None, two_threads, progress: &progress, check };
        let mut sealer = LayerSealer::new(portable(), keys());
        let pumped = sealer.pump(source.open().as_fd(), target.create().as_fd(), control).unwrap();
        assert!((500_000..20_000_000).contains(&pumped));
        assert_eq!(sealer.finalize().size, pumped);
        assert_eq!(target.content().len() as u64, pumped);
    }
}

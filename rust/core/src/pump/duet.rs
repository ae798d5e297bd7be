//! Two threads, one layer.
//!
//! The caller's thread reads, and encrypts or decrypts. The other hashes, all three states at once,
//! for the plaintext's costs next to nothing beside the ciphertext's two; but where the hashes are
//! the bottleneck and the first would have to wait, it takes the plaintext's. Whoever has time
//! writes. The [`Table`] says who does what.

use std::thread::{self, Builder};

use super::descriptor::{Sink, Source};
use super::table::{CHUNK, Job, Table};
use super::{GoOn, Progress, PumpError, solo};
use crate::data::Data;
use crate::pass::Pass;
use crate::sha256::BLOCK;

/// Pumps all that the source holds through a pass that has no unfinished block; on one thread where
/// the operating system gives no second.
pub(super) fn pump(
    pass: &mut Pass,
    source: &mut Source<'_>,
    sink: &Sink<'_>,
    progress: &Progress,
    go_on: &mut GoOn<'_>,
) -> Result<(), PumpError> {
    debug_assert!(pass.is_aligned());
    let Pass { engine, direction, counter, hashes, .. } = pass;
    let (engine, direction) = (&*engine, *direction);
    let table = Table::new(hashes.plaintext);
    let mut whole = 0;
    let mut tail = Vec::new();

    let on_two = thread::scope(|scope| {
        let second = Builder::new().spawn_scoped(scope, || {
            let _guard = table.fail_on_panic();
            loop {
                match table.job_of_the_second() {
                    Job::Hash(chunk, plaintext) => {
                        hashes.plaintext = plaintext;
                        let (plaintext, ciphertext) = chunk.sides(direction);
                        engine.compress_layer(hashes, plaintext, ciphertext);
                        table.hashed(chunk, hashes.plaintext);
                    }
                    Job::Digest(chunk, mut plaintext) => {
                        engine.compress(&mut plaintext, chunk.sides(direction).0);
                        table.hashed(chunk, Some(plaintext));
                    }
                    Job::Write(chunk) => {
                        let written = sink.write(chunk.output(), &mut || table.has_not_failed());
                        table.written(chunk, written, progress);
                    }
                    Job::Read(_) | Job::None => break,
                }
            }
        });
        if second.is_err() {
            return false;
        }

        let _guard = table.fail_on_panic();
        loop {
            match table.job_of_the_first(go_on) {
                Job::Read(mut chunk) => match source.fill(&mut chunk.input, go_on) {
                    Err(error) => table.fail(error),
                    Ok(len) => {
                        chunk.len = len / BLOCK * BLOCK;
                        whole += chunk.len as u64;
                        let (input, output) = (&chunk.input, &mut chunk.output);
                        engine.crypt(counter, &input[..chunk.len], &mut output[..chunk.len]);
                        tail.extend_from_slice(&chunk.input[chunk.len..len]);
                        table.pass_on(chunk, len < CHUNK);
                    }
                },
                Job::Digest(chunk, mut plaintext) => {
                    engine.compress(&mut plaintext, chunk.sides(direction).0);
                    table.hashed(chunk, Some(plaintext));
                }
                Job::Write(chunk) => {
                    let written = sink.write(chunk.output(), go_on);
                    table.written(chunk, written, progress);
                }
                Job::Hash(..) | Job::None => break,
            }
        }
        true
    });
    if !on_two {
        return solo(pass, source, sink, progress, go_on);
    }
    hashes.plaintext = table.verdict()?;

    pass.size += whole;
    let mut output = vec![0; tail.len()];
    pass.update(Data::apart(&tail, &mut output), false);
    sink.write(&output, go_on)?;
    progress.add(output.len());
    Ok(())
}

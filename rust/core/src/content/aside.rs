//! Two threads, one layer's content: the one decompresses, and whoever would wait judges.
//!
//! Pieces of the layer go to the second thread, which decompresses them. What comes out is hashed, in
//! order, by the thread that has nothing else to do: the caller's while the other one is behind, the
//! other one while nothing comes, or where too much lies there. So both are busy, whichever of
//! reading, decompressing and hashing takes the longest.

use std::collections::VecDeque;
use std::mem;
use std::panic::resume_unwind;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use super::decoder::{Decompressor, PIECE};
use super::judge::{Content, Judge};
use crate::Error;

/// Bytes of the layer that are handed over at once.
const CHUNK: usize = 64 * 1024;

/// How many chunks may wait to be decompressed.
const CHUNKS: usize = 16;

/// How many pieces of content may wait to be judged.
const PIECES: usize = 8;

/// The caller's end. Dropping it ends the other thread.
pub(super) struct Aside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<u8>>,
}

impl Aside {
    /// Starts the second thread; gives all back where there is none to be had.
    pub(super) fn spawn(
        source: Option<Decompressor>,
        judge: Box<Judge>,
    ) -> Result<Self, (Option<Decompressor>, Box<Judge>)> {
        let judge = Some(judge);
        let state = State { source, judge, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let theirs = Arc::clone(&shared);
        if let Ok(thread) = Builder::new().name("content".into()).spawn(move || theirs.work()) {
            return Ok(Self { shared, thread: Some(thread) });
        }
        let State { source, judge, .. } = mem::take(&mut *lock(&shared.state));
        Err((source, judge.expect("nobody else had it")))
    }

    /// Hands over the next piece of the layer.
    pub(super) fn update(&mut self, data: &[u8]) {
        for chunk in data.chunks(CHUNK) {
            let mut state = lock(&self.shared.state);
            while state.chunks.len() >= CHUNKS && !state.ended() {
                state = self.shared.judge_or_wait(state);
            }
            if state.ended() {
                return;
            }
            let mut owned = state.spare.pop().unwrap_or_default();
            drop(state);
            owned.clear();
            owned.extend_from_slice(chunk);
            lock(&self.shared.state).chunks.push_back(owned);
            self.shared.changed.notify_one();
        }
    }

    /// Ends the layer.
    pub(super) fn finish(mut self) -> Result<Content, Error> {
        let mut state = lock(&self.shared.state);
        state.complete = true;
        self.shared.changed.notify_one();
        while !state.ended() {
            state = self.shared.judge_or_wait(state);
        }
        drop(state);
        let flags = self.join();
        let mut state = lock(&self.shared.state);
        match state.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(state.judge.take().expect("neither thread has it any more").finish(flags)),
        }
    }

    fn join(&mut self) -> u8 {
        let thread = self.thread.take();
        // Its panic is passed on, so that no verdict comes of it.
        thread.map_or(0, |thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        lock(&self.shared.state).abandoned = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // nobody waits for a verdict
        }
    }
}

struct Shared {
    state: Mutex<State>,
    /// Notified of each change that the other thread may wait for.
    changed: Condvar,
}

/// Content, at the beginning of a buffer.
struct Piece {
    buffer: Vec<u8>,
    len: usize,
}

#[derive(Default)]
struct State {
    /// Until the second thread takes it.
    source: Option<Decompressor>,
    /// Of the layer, to be decompressed.
    chunks: VecDeque<Vec<u8>>,
    /// Of the content, to be judged.
    pieces: VecDeque<Piece>,
    /// None while a thread judges.
    judge: Option<Box<Judge>>,
    /// Buffers that are free: chunks', and pieces'.
    spare: Vec<Vec<u8>>,
    spare_pieces: Vec<Vec<u8>>,
    /// No more chunks will come.
    complete: bool,
    /// Nobody asks for the verdict any more.
    abandoned: bool,
    /// The second thread has done all that it had to do, or has failed.
    done: bool,
    failure: Option<Error>,
}

impl State {
    fn ended(&self) -> bool {
        self.done || self.failure.is_some()
    }
}

impl Shared {
    /// The second thread; gives the flags of gzip headers.
    fn work(&self) -> u8 {
        let _guard = DoneAtLast(self);
        let mut source = lock(&self.state).source.take();
        if let Err(failure) = self.decompress(source.as_mut()) {
            lock(&self.state).failure = Some(failure);
        }
        source.map_or(0, |source| source.gzip_flags())
    }

    fn decompress(&self, mut source: Option<&mut Decompressor>) -> Result<(), Error> {
        let mut state = lock(&self.state);
        loop {
            if state.abandoned {
                return Ok(());
            }
            if let Some(chunk) = state.chunks.pop_front() {
                self.changed.notify_one();
                drop(state);
                match &mut source {
                    Some(source) => self.decompress_chunk(source, chunk)?,
                    None => self.offer(Piece { len: chunk.len(), buffer: chunk }),
                }
                state = lock(&self.state);
            } else if state.complete && state.pieces.is_empty() && state.judge.is_some() {
                drop(state);
                return source.map_or(Ok(()), |source| source.finish());
            } else {
                state = self.judge_or_wait(state);
            }
        }
    }

    fn decompress_chunk(&self, source: &mut Decompressor, chunk: Vec<u8>) -> Result<(), Error> {
        let mut rest = &chunk[..];
        source.expect(rest);
        loop {
            let mut state = lock(&self.state);
            if state.abandoned {
                return Ok(());
            }
            let spare = state.spare_pieces.pop();
            drop(state);
            let mut buffer = spare.unwrap_or_else(|| vec![0; PIECE]);
            let len = source.decode(&mut rest, &mut buffer)?;
            self.offer(Piece { buffer, len });
            if len < PIECE {
                break;
            }
        }
        lock(&self.state).spare.push(chunk);
        Ok(())
    }

    /// Lays a piece of content down to be judged, once there is room.
    fn offer(&self, piece: Piece) {
        let mut state = lock(&self.state);
        while state.pieces.len() >= PIECES && !state.abandoned {
            state = self.judge_or_wait(state);
        }
        state.pieces.push_back(piece);
        self.changed.notify_one();
    }

    /// Judges the next piece of content; where there is none, or the other thread is at it, waits.
    fn judge_or_wait<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.pieces.is_empty() || state.judge.is_none() {
            return self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let (piece, judge) = (state.pieces.pop_front(), state.judge.take());
        drop(state);
        let Piece { buffer, len } = piece.expect("it was there");
        let mut judge = judge.expect("so was the judge");
        judge.take(&buffer[..len]);
        let mut state = lock(&self.state);
        state.judge = Some(judge);
        let spare = if buffer.len() == PIECE { &mut state.spare_pieces } else { &mut state.spare };
        spare.push(buffer);
        self.changed.notify_one();
        state
    }
}

/// Lets the caller's thread go on, also where the second one panics.
struct DoneAtLast<'a>(&'a Shared);

impl Drop for DoneAtLast<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).done = true;
        self.0.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

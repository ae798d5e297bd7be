//! The check of a layer's content, which comes compressed or not, in pieces of any length.

use std::fmt;
use std::sync::Arc;

use super::aside::Aside;
use super::decoder::{Decompressor, PIECE};
use super::hash::HashAlgorithm;
use super::judge::{Content, Judge};
use super::unpacking::Unpacking;
use crate::Error;
use crate::form::Form;

/// Reads a layer's content. Whatever is wrong with it, [`ContentCheck::finish`] says.
pub struct ContentCheck(Mode);

enum Mode {
    Here(Box<Here>),
    Aside(Aside),
}

impl ContentCheck {
    /// Begins a layer, compressed in a form or not at all; `guest` asks what a guest would say.
    ///
    /// `aside`: on another thread, with the caller's help where that is behind; where the operating
    /// system gives none, the caller's does it.
    #[must_use]
    pub fn new(
        form: Option<Form>,
        algorithm: HashAlgorithm,
        unpacking: Arc<Unpacking>,
        guest: bool,
        aside: bool,
    ) -> Self {
        let source = form.map(|form| Decompressor::new(form, unpacking));
        let judge = Box::new(Judge::new(algorithm, guest));
        if !aside {
            return Self(Mode::Here(Box::new(Here::new(source, judge))));
        }
        Self(match Aside::spawn(source, judge) {
            Ok(aside) => Mode::Aside(aside),
            Err((source, judge)) => Mode::Here(Box::new(Here::new(source, judge))),
        })
    }

    /// Takes the next piece of the layer.
    pub fn update(&mut self, data: &[u8]) {
        match &mut self.0 {
            Mode::Here(here) => here.update(data),
            Mode::Aside(aside) => aside.update(data),
        }
    }

    /// Ends the layer.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::EndsEarly`], [`Error::TooMuchContent`]
    pub fn finish(self) -> Result<Content, Error> {
        match self.0 {
            Mode::Here(here) => here.finish(),
            Mode::Aside(aside) => aside.finish(),
        }
    }
}

impl fmt::Debug for ContentCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContentCheck").finish_non_exhaustive()
    }
}

/// A check on the caller's own thread.
struct Here {
    source: Option<Decompressor>,
    judge: Box<Judge>,
    buffer: Vec<u8>,
    failure: Option<Error>,
}

impl Here {
    fn new(source: Option<Decompressor>, judge: Box<Judge>) -> Self {
        let buffer = vec![0; if source.is_some() { PIECE } else { 0 }];
        Self { source, judge, buffer, failure: None }
    }

    fn update(&mut self, mut data: &[u8]) {
        let Some(source) = &mut self.source else { return self.judge.take(data) };
        if self.failure.is_some() {
            return;
        }
        source.expect(data);
        loop {
            match source.decode(&mut data, &mut self.buffer) {
                Ok(count) => {
                    self.judge.take(&self.buffer[..count]);
                    if count < self.buffer.len() {
                        return;
                    }
                }
                Err(error) => {
                    self.failure = Some(error);
                    return;
                }
            }
        }
    }

    fn finish(self) -> Result<Content, Error> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let Some(source) = self.source else { return Ok(self.judge.finish(0)) };
        source.finish()?;
        Ok(self.judge.finish(source.gzip_flags()))
    }
}

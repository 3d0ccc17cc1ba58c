//! What client and broker say to each other, without a socket.

use crate::control::message::{Answer, Request};

/// What a broker takes `bytes` for, written again; `None` where it is no request.
pub fn request(bytes: &[u8]) -> Option<Vec<u8>> {
    Request::parse(bytes).ok().map(|request| request.bytes().to_vec())
}

/// What a client takes `bytes` for, written again; `None` where it is no answer.
pub fn answer(bytes: &[u8]) -> Option<Vec<u8>> {
    Answer::parse(bytes).map(|answer| answer.bytes().to_vec())
}

//! The worker: answers until its keeper is gone.

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use shmbus::{Broker, Policy};
use shmbus_sys::shm;
use shmbus_sys::unix::{self, Readiness};

use super::config::policy_of;
use super::keeper::{ANSWERS, BEAT, DECIDES, LOOK};

pub(super) fn work() -> Result<()> {
    let stdin = io::stdin();
    let keeper = stdin.as_fd();
    // It was started by the number of a descriptor, which would be its name.
    rustix::thread::set_name(c"shmbus")?;
    let lent = || -> Result<Option<Broker>> {
        let Some(policy) = receive_policy(keeper)? else { return Ok(None) };
        Ok(Some(Broker::inherit(keeper, policy)?))
    };
    let Some(mut broker) = lent().context("not started by a keeper")? else { return Ok(()) };
    unix::never_block(keeper)?;
    let mut last: Option<Instant> = None;
    loop {
        if last.is_none_or(|last| last.elapsed() >= BEAT) {
            last = Some(Instant::now());
            if !tell(keeper, ANSWERS)? {
                return Ok(());
            }
        }
        broker.turn(LOOK)?;
        match unix::wait(&[(keeper, true)], Duration::ZERO)?[0] {
            Readiness::Nothing => {}
            Readiness::Closed => return Ok(()),
            Readiness::Readable => {
                let Some(policy) = receive_policy(keeper)? else { return Ok(()) };
                broker.set_policy(policy)?;
                if !tell(keeper, DECIDES)? {
                    return Ok(());
                }
            }
        }
    }
}

/// Whether the keeper is there. One that is stopped reads nothing, and misses what it need not be told twice.
fn tell(keeper: BorrowedFd<'_>, what: u8) -> Result<bool> {
    match unix::send(keeper, &[what], &[]) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
        Err(error)
            if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) =>
        {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}

/// The policy that the keeper passes; `None`: it is gone.
fn receive_policy(keeper: BorrowedFd<'_>) -> Result<Option<Policy>> {
    let (len, fds) = unix::receive_descriptors(keeper, &mut [0])?;
    let Some(file) = fds.first() else {
        anyhow::ensure!(len == 0, "no policy came");
        return Ok(None);
    };
    let mut text = vec![0; shm::len(file.as_fd())? as usize];
    shm::read_exact_at(file.as_fd(), &mut text, 0)?;
    Ok(Some(policy_of(str::from_utf8(&text)?)?))
}

//! What the kernel offers to this process: tried, or read where the kernel states it.

use shmbus_sys::probe::{self, Limit, Limited};
use shmbus_sys::{membarrier, process};

use super::{Finding, Level};
use crate::text;

/// Handles of a process take two descriptors each; below so many free ones it gets tight.
const DESCRIPTORS_FEW: u64 = 1024;

pub(super) fn all() -> Vec<Finding> {
    let mut findings = vec![kernel(), futex(), barrier(), io_uring()];
    findings.extend(huge_pages());
    findings.extend([descriptors(), file_size(), locked(), core(), clock(), cores()]);
    findings
}

fn kernel() -> Finding {
    match probe::kernel_release() {
        Ok(release) => {
            Finding::new("kernel", Level::Ok, format!("Linux {release}")).fact("release", release)
        }
        Err(error) => Finding::new("kernel", Level::Note, format!("release unknown: {error}")),
    }
}

fn futex() -> Finding {
    match probe::futex_waitv() {
        Ok(()) => Finding::new("futex_waitv", Level::Ok, "works"),
        Err(error) => Finding::new("futex_waitv", Level::Problem, format!("refused: {error}"))
            .advice(
                "Linux 5.16 or later is needed, and a filter of system calls that lets it through",
            ),
    }
}

fn barrier() -> Finding {
    let works =
        membarrier::register_global_expedited().and_then(|()| membarrier::global_expedited());
    match works {
        Ok(()) => Finding::new("membarrier", Level::Ok, "global expedited: works"),
        Err(error) => {
            Finding::new("membarrier", Level::Warning, format!("global expedited: refused: {error}"))
                .advice("each publish pays for a fence, and sleeps are short; let membarrier(2) through the filter of system calls")
        }
    }
}

fn io_uring() -> Finding {
    match probe::io_uring() {
        Ok(()) => Finding::new("io_uring", Level::Ok, "works (shmbus does not need it)"),
        Err(error) => Finding::new(
            "io_uring",
            Level::Note,
            format!("not to be had: {error} (shmbus does not need it)"),
        ),
    }
}

fn huge_pages() -> Vec<Finding> {
    let probe::HugePages { shmem, reserved } = probe::huge_pages();
    let mut findings = Vec::new();
    if let Some(shmem) = shmem {
        let level = if shmem == "deny" { Level::Note } else { Level::Ok };
        let finding = format!(
            "transparent, for shared memory: {shmem}; for a tmpfs its mount option huge= decides"
        );
        findings.push(Finding::new("huge pages", level, finding).fact("shmem_enabled", shmem));
    }
    if let Some(pages) = reserved {
        let finding = match pages {
            0 => Finding::new("huge pages", Level::Ok, "none is set aside"),
            _ => Finding::new("huge pages", Level::Note, format!("{pages} are set aside"))
                .advice("topics do not use these: vm.nr_hugepages takes memory away from them"),
        };
        findings.push(finding.fact("huge_pages_total", pages));
    }
    findings
}

fn descriptors() -> Finding {
    let limit = probe::limit(Limited::Descriptors);
    let is_low = limit.soft.is_some_and(|soft| soft < DESCRIPTORS_FEW);
    let finding = format!("{} descriptors", or_unlimited(limit.soft.map(|n| n.to_string())));
    let finding = match is_low {
        false => Finding::new("RLIMIT_NOFILE", Level::Ok, finding),
        true => Finding::new("RLIMIT_NOFILE", Level::Warning, finding).advice(
            "an open topic takes two, creating one a few more: raise it (ulimit -n, LimitNOFILE=)",
        ),
    };
    with_limit(finding, limit)
}

fn file_size() -> Finding {
    let limit = probe::limit(Limited::FileBytes);
    let finding = match limit.soft {
        None => Finding::new("RLIMIT_FSIZE", Level::Ok, "unlimited"),
        Some(bytes) => Finding::new("RLIMIT_FSIZE", Level::Warning, text::size(bytes))
            .advice("no topic can be larger than this: raise it (ulimit -f, LimitFSIZE=)"),
    };
    with_limit(finding, limit)
}

fn locked() -> Finding {
    let limit = probe::limit(Limited::LockedBytes);
    let finding = format!("{} (shmbus locks nothing)", or_unlimited(limit.soft.map(text::size)));
    with_limit(Finding::new("RLIMIT_MEMLOCK", Level::Ok, finding), limit)
}

fn core() -> Finding {
    let limit = probe::limit(Limited::CoreBytes);
    let size = or_unlimited(limit.soft.map(text::size));
    let finding = match limit.soft {
        Some(0) => Finding::new("RLIMIT_CORE", Level::Ok, "no core dumps"),
        _ => Finding::new("RLIMIT_CORE", Level::Note, size)
            .advice("who dumps core keeps its places in topics until the dump is written; topics are not part of it"),
    };
    with_limit(finding, limit)
}

fn clock() -> Finding {
    let Some(source) = probe::clock_source() else {
        return Finding::new("clock", Level::Note, "the kernel does not say which it reads");
    };
    let finding = match source.as_str() {
        // Those that the vDSO can read.
        "tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page" => {
            Finding::new("clock", Level::Ok, source.clone())
        }
        _ => Finding::new("clock", Level::Warning, source.clone())
            .advice("reading the time is a system call: timestamps and waiting cost more (see tsc= of the kernel)"),
    };
    finding.fact("clock_source", source)
}

fn cores() -> Finding {
    let cores = process::cores();
    let (governor, smt) = (probe::frequency_governor(), probe::smt_active());
    let mut words = vec![format!("{cores} to run on")];
    words.extend(governor.iter().map(|governor| format!("governor {governor}")));
    words.extend(
        smt.map(|active| {
            if active { "threads share cores" } else { "one thread a core" }.to_owned()
        }),
    );
    let words = words.join(", ");
    let is_slow = governor.as_deref().is_some_and(|name| name == "powersave" || name == "ondemand");
    let finding = match (cores, is_slow) {
        (1, _) => Finding::new("processors", Level::Note, words)
            .advice("publishers and subscribers take turns: who spins keeps the others from running"),
        (_, true) => Finding::new("processors", Level::Note, words)
            .advice("latencies include the time in which the frequency goes up: governor performance, where it matters"),
        _ => Finding::new("processors", Level::Ok, words),
    };
    let finding = finding.fact("cores", cores);
    let finding =
        governor.into_iter().fold(finding, |finding, name| finding.fact("governor", name));
    smt.into_iter().fold(finding, |finding, active| finding.fact("smt", active))
}

fn or_unlimited(limit: Option<String>) -> String {
    limit.unwrap_or_else(|| "unlimited".to_owned())
}

/// The limit as numbers; null is none.
fn with_limit(finding: Finding, limit: Limit) -> Finding {
    finding.fact("soft", limit.soft).fact("hard", limit.hard)
}

//! The machine that a result belongs to.

use serde::Serialize;
use std::fs::read_to_string;

#[derive(Clone, Debug, Serialize)]
pub(super) struct Machine {
    /// Of the affinity mask of this process.
    pub(super) cores: usize,
    pub(super) cpu: Option<String>,
    pub(super) kernel: Option<String>,
}

impl Machine {
    pub(super) fn this() -> Machine {
        let cpuinfo = read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let kernel = read_to_string("/proc/sys/kernel/osrelease").ok();
        Machine {
            cores: shmbus_sys::process::cores(),
            cpu: model.map(|model| model.trim_start_matches([' ', '\t', ':']).to_owned()),
            kernel: kernel.map(|release| format!("Linux {}", release.trim())),
        }
    }

    /// Processor and kernel, as far as known.
    pub(super) fn name(&self) -> String {
        let known = [self.cpu.as_deref(), self.kernel.as_deref()];
        let known: Vec<&str> = known.into_iter().flatten().collect();
        if known.is_empty() { "unknown".to_owned() } else { known.join(", ") }
    }
}

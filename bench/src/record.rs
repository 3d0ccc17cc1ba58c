//! Raw data: what every run of a measurement said, and the machine that it belongs to.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::placement::Placement;
use crate::probe::Class;
use crate::transport::Wait;

/// The machine that a result belongs to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    /// Of the affinity mask of the program.
    pub(crate) cores: usize,
    pub(crate) kernel: String,
    /// Which cores those are; the sender runs on the first.
    pub(crate) placement: String,
}

impl Machine {
    pub(crate) fn this(placement: &Placement) -> Machine {
        let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map_or("unknown processor", |name| name.trim_matches([' ', '\t', ':']));
        let hypervisor = if cpu_info.contains(" hypervisor") { ", virtual" } else { "" };
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Machine {
            cpu: format!("{model}{hypervisor}"),
            cores: placement.cores(),
            kernel: format!("Linux {}", kernel.trim()),
            placement: placement.name(),
        }
    }

    pub(crate) fn name(&self) -> String {
        let Machine { cpu, cores, kernel, .. } = self;
        format!("{cpu}, {cores} cores, {kernel}")
    }
}

/// What was run: runs with the same one are rounds of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Case {
    /// Of a measurement that does several things: which.
    pub(crate) variant: String,
    pub(crate) payload: usize,
    pub(crate) receivers: usize,
    pub(crate) wait: Wait,
    pub(crate) transport: String,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) round: usize,
    pub(crate) case: Case,
    /// The bare cache-line ping-pong before and after, in nanoseconds.
    pub(crate) probe_ns: [f64; 2],
    pub(crate) class: Class,
    pub(crate) oversubscribed: bool,
    /// By name, with the unit in it.
    pub(crate) values: BTreeMap<String, f64>,
}

impl Record {
    pub(crate) fn probe_mean_ns(&self) -> f64 {
        (self.probe_ns[0] + self.probe_ns[1]) / 2.0
    }
}

/// All runs of a measurement.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) measurement: String,
    pub(crate) version: String,
    pub(crate) machine: Machine,
    pub(crate) effort: String,
    /// What was not run, and why.
    pub(crate) left_out: Vec<String>,
    pub(crate) records: Vec<Record>,
}

/// A whole file as text; an error if it is longer than any that this program writes.
pub(crate) fn read_text(path: &Path) -> std::io::Result<String> {
    const LEN_MAX: u64 = 64 << 20;
    let mut text = String::new();
    fs::File::open(path)?.take(LEN_MAX + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LEN_MAX {
        true => Err(std::io::ErrorKind::FileTooLarge.into()),
        false => Ok(text),
    }
}

impl Results {
    pub(crate) fn read(path: &Path) -> Result<Results> {
        let text = read_text(path).with_context(|| format!("{}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{}", path.display()))
    }

    /// A line for each run, so that two results can be compared by eye.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut head = serde_json::to_value(self)?;
        let records = head.as_object_mut().and_then(|head| head.remove("records"));
        let head = serde_json::to_string(&head)?;
        let lines: Vec<String> = records
            .and_then(|records| records.as_array().cloned())
            .unwrap_or_default()
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()?;
        let head = head.trim_end_matches('}');
        let text = format!("{head},\"records\":[\n{}\n]}}\n", lines.join(",\n"));
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Gives each run the ratio of its `value` to that of the run of the same round whose case `is_base` for its own.
    pub(crate) fn relate(
        &mut self,
        value: &str,
        ratio: &str,
        is_base: impl Fn(&Case, &Case) -> bool,
    ) {
        let base = |record: &Record| {
            let mut round = self.records.iter().filter(|other| other.round == record.round);
            let base = round.find(|other| is_base(&record.case, &other.case))?;
            Some(record.values.get(value)? / base.values.get(value)?)
        };
        let ratios: Vec<Option<f64>> = self.records.iter().map(base).collect();
        for (record, value) in self.records.iter_mut().zip(ratios) {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                record.values.insert(ratio.to_owned(), value);
            }
        }
    }

    /// The median over all runs of the cases that `is_wanted`, whatever the placement.
    pub(crate) fn median(&self, is_wanted: impl Fn(&Case) -> bool, value: &str) -> Option<f64> {
        let wanted = self.records.iter().filter(|record| is_wanted(&record.case));
        let mut values: Vec<f64> =
            wanted.filter_map(|record| record.values.get(value).copied()).collect();
        (!values.is_empty()).then(|| crate::placement::median(&mut values))
    }

    /// The runs of each case in each class of placement, in the order of [`Case`].
    pub(crate) fn groups(&self) -> Vec<Group<'_>> {
        let mut groups: BTreeMap<(&Case, Class), Vec<&Record>> = BTreeMap::new();
        for record in self.records.iter().filter(|record| record.class != Class::Moved) {
            groups.entry((&record.case, record.class)).or_default().push(record);
        }
        groups.into_iter().map(|((case, class), runs)| Group { case, class, runs }).collect()
    }
}

/// The rounds of a case in one class of placement.
pub(crate) struct Group<'a> {
    pub(crate) case: &'a Case,
    pub(crate) class: Class,
    pub(crate) runs: Vec<&'a Record>,
}

impl Group<'_> {
    /// Lowest, middle and highest of a value.
    pub(crate) fn spread(&self, value: &str) -> Option<[f64; 3]> {
        let mut values: Vec<f64> =
            self.runs.iter().filter_map(|run| run.values.get(value).copied()).collect();
        values.sort_by(f64::total_cmp);
        Some([*values.first()?, *values.get(values.len() / 2)?, *values.last()?])
    }

    pub(crate) fn probe_ns(&self) -> f64 {
        let mut probes: Vec<f64> = self.runs.iter().map(|run| run.probe_mean_ns()).collect();
        crate::placement::median(&mut probes)
    }

    pub(crate) fn is_oversubscribed(&self) -> bool {
        self.runs.iter().any(|run| run.oversubscribed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(round: usize, class: Class, rate: f64) -> Record {
        let case = Case {
            variant: String::new(),
            payload: 48,
            receivers: 1,
            wait: Wait::Spin,
            transport: "pipe".to_owned(),
        };
        let values = BTreeMap::from([("rate_per_s".to_owned(), rate)]);
        Record { round, case, probe_ns: [50.0, 60.0], class, oversubscribed: false, values }
    }

    fn results(records: Vec<Record>) -> Results {
        Results {
            measurement: "m".to_owned(),
            version: "1".to_owned(),
            machine: Machine::this(&Placement::of_this_process().unwrap()),
            effort: "quick".to_owned(),
            left_out: vec!["x".to_owned()],
            records,
        }
    }

    #[test]
    fn rounds_are_grouped_by_placement_and_those_in_between_left_out() {
        let records = vec![
            record(0, Class::Near, 3.0),
            record(1, Class::Far, 100.0),
            record(2, Class::Near, 1.0),
            record(3, Class::Moved, 50.0),
            record(4, Class::Near, 2.0),
        ];
        let results = results(records);
        let groups = results.groups();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].spread("rate_per_s"), Some([1.0, 2.0, 3.0]));
        assert_eq!(
            (groups[1].class, groups[1].spread("rate_per_s")),
            (Class::Far, Some([100.0; 3]))
        );
        assert_eq!((groups[0].probe_ns(), groups[0].spread("p50_ns")), (55.0, None));
    }

    #[test]
    fn a_ratio_is_taken_within_a_round() {
        let mut records = vec![
            record(0, Class::Near, 30.0),
            record(0, Class::Near, 3.0),
            record(1, Class::Near, 8.0),
            record(1, Class::Near, 2.0),
        ];
        records.iter_mut().step_by(2).for_each(|one| one.case.transport = "shmbus".to_owned());
        let mut results = results(records);
        results.relate("rate_per_s", "per_pipe", |_, base| base.transport == "pipe");
        assert_eq!(results.median(|case| case.transport == "pipe", "per_pipe"), Some(1.0));
        let ratios: Vec<f64> =
            results.records.iter().step_by(2).map(|one| one.values["per_pipe"]).collect();
        assert_eq!(ratios, [10.0, 4.0]);
        assert_eq!(results.median(|case| case.transport == "tcp", "per_pipe"), None);
    }

    #[test]
    fn results_are_read_as_they_were_written() {
        let scratch = crate::placement::Scratch::new().unwrap();
        let path = scratch.path().join("m.json");
        let results = results(vec![record(0, Class::Mid, 0.125), record(1, Class::Far, 7.0)]);
        results.write(&path).unwrap();
        let again = Results::read(&path).unwrap();
        assert_eq!(again.machine, results.machine);
        assert_eq!(serde_json::to_value(&again).unwrap(), serde_json::to_value(&results).unwrap());
    }
}

//! A measurement: its cases run in rounds, each round all of them, begun one further each time, with a probe between.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;

use crate::placement::{Placement, Scratch, pin};
use crate::probe::{self, Class};
use crate::record::{Case, Machine, Record, Results};
use crate::registry::{Registered, Transports};
use crate::run::{Outcome, Run};
use crate::transport::{Channel, Wait};

/// How much time a measurement takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Three rounds, to see whether it works.
    Quick,
    Usual,
    /// Fifteen rounds, each longer.
    Full,
}

impl Effort {
    pub(crate) fn rounds(self) -> usize {
        match self {
            Effort::Quick => 3,
            Effort::Usual => 7,
            Effort::Full => 15,
        }
    }

    /// What takes `usual` usually.
    pub(crate) fn scale(self, usual: u64) -> u64 {
        match self {
            Effort::Quick => usual / 4,
            Effort::Usual => usual,
            Effort::Full => usual * 3,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Effort::Quick => "quick",
            Effort::Usual => "usual",
            Effort::Full => "full",
        }
    }
}

/// What all measurements across processes are told.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Three short rounds: to see whether it works
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Fifteen long rounds
    #[arg(long)]
    full: bool,
    /// Rounds; each runs everything once [default: 7]
    #[arg(long)]
    rounds: Option<usize>,
    /// These only, separated by commas
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    transports: Vec<String>,
    /// Where the raw data goes, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Options {
    pub(crate) fn effort(&self) -> Effort {
        match (self.quick, self.full) {
            (true, _) => Effort::Quick,
            (_, true) => Effort::Full,
            _ => Effort::Usual,
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(self.effort().rounds()).max(1)
    }

    /// These, with so many rounds where nothing else was asked for.
    pub(crate) fn with_rounds(&self, usual: usize) -> Options {
        let is_usual = self.effort() == Effort::Usual;
        let rounds = self.rounds.or(is_usual.then_some(usual));
        Options { rounds, ..self.clone() }
    }

    /// Whether a transport of this name is to take part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.transports.is_empty() || self.transports.iter().any(|one| one == name)
    }

    /// Writes what was run where the options say.
    pub(crate) fn keep(&self, results: &Results) -> Result<()> {
        self.json.as_ref().map_or(Ok(()), |path| results.write(path))
    }
}

/// One measurement in progress.
pub(crate) struct Session {
    transports: Vec<&'static dyn Registered>,
    pub(crate) placement: Placement,
    pub(crate) options: Options,
    last_probe_ns: Option<f64>,
    results: Results,
}

/// Something to be run in every round.
pub(crate) struct Planned {
    pub(crate) case: Case,
    pub(crate) run: Run,
}

impl Session {
    /// A measurement called `measurement`.
    ///
    /// # Errors
    /// A transport that is asked for and not there.
    pub(crate) fn new(
        measurement: &str,
        transports: Transports,
        options: &Options,
    ) -> Result<Session> {
        let placement = Placement::of_this_process()?;
        for name in &options.transports {
            transports.get(name)?;
        }
        let is_wanted = |one: &&dyn Registered| options.wants(one.name());
        let mut left_out = Vec::new();
        let mut there = Vec::new();
        for one in transports.all().filter(is_wanted) {
            match is_there(one) {
                Ok(()) => there.push(one),
                Err(error) => left_out.push(format!("{}: {error:#}", one.name())),
            }
        }
        ensure!(!there.is_empty(), "none of these transports is there");
        let machine = Machine::this(&placement);
        println!("{measurement}: {}; {}", machine.name(), machine.placement);
        let results = Results {
            measurement: measurement.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            machine,
            effort: format!("{}, {} rounds", options.effort().name(), options.rounds()),
            left_out,
            records: Vec::new(),
        };
        Ok(Session {
            transports: there,
            placement,
            options: options.clone(),
            last_probe_ns: None,
            results,
        })
    }

    pub(crate) fn transports(&self) -> Vec<&'static dyn Registered> {
        self.transports.clone()
    }

    /// What a plan of this `run` is called.
    pub(crate) fn plan(&mut self, variant: &str, run: Run, plans: &mut Vec<Planned>) {
        let Run { transport, payload, receivers, wait, .. } = run;
        if let Some(lack) = run.lack() {
            let note = format!("{}: {lack}", transport.name());
            if !self.results.left_out.contains(&note) {
                self.results.left_out.push(note);
            }
            return;
        }
        let transport = transport.name().to_owned();
        let variant = variant.to_owned();
        plans.push(Planned { case: Case { variant, payload, receivers, wait, transport }, run });
    }

    /// The bare cache-line ping-pong, in nanoseconds.
    fn probe(&mut self) -> Result<f64> {
        if self.placement.is_short_of(2) {
            return Ok(f64::NAN);
        }
        pin(self.placement.sender())?;
        let scratch = Scratch::new()?;
        let time_ns = probe::round_trip_ns(scratch.path(), 20_000, self.placement.receiver(0));
        self.placement.release()?;
        time_ns
    }

    /// Runs everything once in each round; `values` says what of an outcome is kept.
    ///
    /// # Errors
    /// The first run that fails.
    pub(crate) fn rounds(
        &mut self,
        plans: &[Planned],
        values: impl Fn(&Run, &Outcome) -> BTreeMap<String, f64>,
    ) -> Result<()> {
        let placement = self.placement.clone();
        self.interleave(plans.len(), |index| {
            let Planned { case, run } = &plans[index];
            let outcome = run.go(&placement)?;
            Ok((case.clone(), outcome.oversubscribed, values(run, &outcome)))
        })
    }

    /// The same for anything: calls `one` with 0 to `count` - 1 in each round, begun one further each time.
    ///
    /// # Errors
    /// The first that fails.
    pub(crate) fn interleave(
        &mut self,
        count: usize,
        mut one: impl FnMut(usize) -> Result<(Case, bool, BTreeMap<String, f64>)>,
    ) -> Result<()> {
        let rounds = self.options.rounds();
        for round in 0..rounds {
            eprint!("\rround {} of {rounds} ", round + 1);
            for index in 0..count {
                let before_ns = match self.last_probe_ns.take() {
                    Some(ns) => ns,
                    None => self.probe()?,
                };
                let (case, oversubscribed, mut values) = one((index + round) % count)?;
                let after_ns = self.probe()?;
                self.last_probe_ns = Some(after_ns);
                let class = match self.placement.is_short_of(2) {
                    true => Class::Alone,
                    false => Class::between(before_ns, after_ns),
                };
                let probe_ns = [before_ns, after_ns];
                if let Some(time_ns) = values.get("mean_ns").or_else(|| values.get("p50_ns")) {
                    let ratio = time_ns / ((before_ns + after_ns) / 2.0);
                    values.insert("per_probe".to_owned(), ratio);
                }
                // A rate that was not measured is none; JSON has no NaN.
                values.retain(|name, value| name != "steady_per_s" || *value > 0.0);
                values.retain(|_, value| value.is_finite());
                let probe_ns = probe_ns.map(|ns| if ns.is_finite() { ns } else { 0.0 });
                let record = Record { round, case, probe_ns, class, oversubscribed, values };
                self.results.records.push(record);
            }
        }
        eprint!("\r{:20}\r", "");
        Ok(())
    }

    /// All that was run.
    pub(crate) fn finish(self) -> Results {
        self.results
    }
}

/// Whether this machine has a transport at all.
fn is_there(transport: &dyn Registered) -> Result<()> {
    let scratch = Scratch::new()?;
    let channel = Channel {
        directory: scratch.path().to_owned(),
        name: "there".to_owned(),
        receivers: 1,
        payload: 48,
        wait: Wait::Block,
        yields: true,
    };
    let made = transport.create(&channel);
    transport.remove(&channel);
    made
}

/// Latency in the columns that every table of latencies has.
pub(crate) fn latency_values(outcome: &Outcome) -> BTreeMap<String, f64> {
    let latency = &outcome.latency;
    let mut values = BTreeMap::from([
        ("p50_ns".to_owned(), latency.quantile_ns(0.5) as f64),
        ("p90_ns".to_owned(), latency.quantile_ns(0.9) as f64),
        ("p99_ns".to_owned(), latency.quantile_ns(0.99) as f64),
        ("p999_ns".to_owned(), latency.quantile_ns(0.999) as f64),
        ("max_ns".to_owned(), latency.max_ns() as f64),
        ("missed".to_owned(), outcome.missed as f64),
        ("cpu_s_per_million".to_owned(), outcome.cpu_s_per_million),
    ]);
    if outcome.mean_ns > 0.0 {
        values.insert("mean_ns".to_owned(), outcome.mean_ns);
    }
    values
}

/// Rates in the columns that every table of rates has.
pub(crate) fn rate_values(run: &Run, outcome: &Outcome) -> BTreeMap<String, f64> {
    let sent = outcome.sent as f64;
    let share = outcome.received.iter().map(|&count| count as f64 / sent.max(1.0));
    BTreeMap::from([
        ("rate_per_s".to_owned(), outcome.slowest()),
        ("steady_per_s".to_owned(), outcome.steady_per_s),
        ("bytes_per_s".to_owned(), outcome.slowest() * run.payload as f64),
        ("missed".to_owned(), outcome.missed as f64),
        ("received_share".to_owned(), share.fold(1.0, f64::min)),
        ("cpu_s_per_million".to_owned(), outcome.cpu_s_per_million),
    ])
}

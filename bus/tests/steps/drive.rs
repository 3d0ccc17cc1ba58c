//! One operation, stopped at one instruction after the other.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Plan;
use crate::processes::{Process, beat};
use crate::random::Random;
use crate::tracee::{Event, Tracee, addresses_are_fixed};

/// How many places in an operation are tried where nobody says otherwise.
const PLACES: usize = 40;
/// Nor is a place tried then to which it takes longer than this to come, in steps: late in a loop.
const FAR: usize = 180;
/// As many steps take as long as a leap.
const A_LEAP: usize = 6;
/// How many processes try to come to a place at full speed.
const LEAPERS: usize = 2;
/// How often a process is killed in its sleep.
const ASLEEP: usize = 8;

/// What happens to a process that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Killed,
    /// It goes on when the others have gone round the ring.
    Stopped,
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was killed between the marks.
    Killed,
    /// It was killed at the second mark.
    KilledBehind,
    /// By itself.
    Done,
}

/// An operation of one process, and those who go on beside it.
pub(crate) trait Scene {
    /// A process that makes a mark, does it, and makes another one.
    fn spawn(&mut self) -> Process;
    /// Whether it may sleep in between.
    fn may_sleep(&self) -> bool;
    /// It stands at the first mark.
    fn begun(&mut self);
    /// It sleeps: do what it waits for.
    fn wake(&mut self);
    /// It stands, and will go on: the others do what they can meanwhile.
    fn meanwhile(&mut self);
    /// It is gone: the others go on, and nothing is lost or left behind.
    fn check(&mut self, end: End);
    /// How long the others stood still.
    fn stood(&self) -> &[Duration];
    fn end(self);
}

/// Where a process is to stand.
enum Place {
    Instruction(usize),
    Asleep,
}

struct Line {
    instructions: usize,
    tried: usize,
    missed: usize,
}

static LINES: Mutex<Vec<Line>> = Mutex::new(Vec::new());

/// The sum of all tests, for people.
pub(crate) fn print_totals() {
    let lines = LINES.lock().unwrap();
    let sum = |of: fn(&Line) -> usize| lines.iter().map(of).sum::<usize>();
    if !lines.is_empty() {
        println!(
            "{} operations and fates, {} instructions, {} places tried and survived, {} missed their aim",
            lines.len(),
            sum(|line| line.instructions),
            sum(|line| line.tried),
            sum(|line| line.missed)
        );
    }
}

/// Stops the operation of a scene at its instructions, for each fate.
pub(crate) fn at_each_instruction<S: Scene>(plan: &Plan, scene: impl Fn(Fate) -> S) {
    let mut first = scene(Fate::Killed);
    let path = usual_path(&mut first);
    one_after_the_other(plan, Fate::Killed, first, &path);
    one_after_the_other(plan, Fate::Stopped, scene(Fate::Stopped), &path);
}

fn one_after_the_other<S: Scene>(plan: &Plan, fate: Fate, mut scene: S, path: &Path) {
    let (begin, scene_may_sleep) = (Instant::now(), scene.may_sleep());
    let every = std::env::var("SHMBUS_TEST_STEPS").ok();
    let stride = match every.as_deref() {
        Some("all") => 1,
        Some(stride) => stride.parse().expect("SHMBUS_TEST_STEPS is `all` or a number"),
        None => path.len().div_ceil(PLACES),
    };
    let calls = path.calls.iter().flat_map(|call| [*call, call + 1]);
    let first = Random::new(plan.seed).below(0..stride as u64) as usize;
    let mut places: BTreeSet<usize> = (first..=path.len()).step_by(stride).chain(calls).collect();
    let ways = path.ways();
    if every.is_none() {
        places.retain(|place| ways[*place].takes <= FAR);
    }
    let mut places: Vec<Place> = places.into_iter().map(Place::Instruction).collect();
    if path.sleeps && fate == Fate::Killed {
        places.extend((0..ASLEEP).map(|_| Place::Asleep));
    }
    let (mut tried, mut missed) = (0, 0);
    for place in &places {
        let mut come = |ways| attempt(&mut scene, place, path, fate, ways);
        // Not every process goes the same way. Who goes step by step takes longer, and perhaps another way: as the first one did.
        match addresses_are_fixed() && (0..LEAPERS).any(|_| come(Some(&ways))) || come(None) {
            true => tried += 1,
            false => missed += 1,
        }
        beat();
    }
    let spread = spread(scene.stood().to_vec());
    scene.end();
    println!(
        "  {fate:?}: {} instructions, {} system calls; before and behind these and every {stride}: {tried} tried and survived, {missed} missed their aim; others stood {spread}; {:.1?}",
        path.len(),
        path.calls.len(),
        begin.elapsed()
    );
    LINES.lock().unwrap().push(Line { instructions: path.len(), tried, missed });
    // The clock decides a little of the way of a process; of one that sleeps, more.
    let most = if scene_may_sleep { tried } else { tried / 4 };
    assert!(missed <= most, "most processes went another way than the first one");
}

/// The way that a process went through the operation, step by step.
struct Path {
    /// The address of each instruction.
    at: Vec<usize>,
    /// When it had been at that address before.
    before: Vec<Option<usize>>,
    /// The instructions that are system calls.
    calls: Vec<usize>,
    sleeps: bool,
}

impl Path {
    fn len(&self) -> usize {
        self.at.len()
    }

    /// The quickest way to each instruction.
    fn ways(&self) -> Vec<Way> {
        let mut ways = vec![Way { from: 0, leaps: false, takes: 0 }];
        // Of those behind which none is quicker, the first is the quickest from where it is on.
        let mut quick = vec![0];
        for place in 1..self.len() {
            let stepping = Way { from: place - 1, leaps: false, takes: ways[place - 1].takes + 1 };
            // It does not come to the address earlier from where it was there before, or from behind that.
            let since = self.before[place].unwrap_or(0);
            let from = quick[quick.partition_point(|quick| *quick < since)];
            let leaping = Way { from, leaps: true, takes: ways[from].takes + A_LEAP };
            let way = if leaping.takes < stepping.takes { leaping } else { stepping };
            while quick.last().is_some_and(|last| ways[*last].takes >= way.takes) {
                quick.pop();
            }
            quick.push(place);
            ways.push(way);
        }
        // The last instruction is the mark: no breakpoint is set where there is one.
        let last = self.len() - 1;
        ways[last] = Way { from: last - 1, leaps: false, takes: ways[last - 1].takes + 1 };
        ways.push(Way { from: last, leaps: false, takes: ways[last].takes + 1 });
        ways
    }
}

/// How a process comes to a place: from another one, by an instruction or at full speed.
#[derive(Clone, Copy)]
struct Way {
    from: usize,
    leaps: bool,
    /// From the first mark, in steps.
    takes: usize,
}

/// The shortest of several ways, of those that sleep if some do: who reads the clock just when it is set reads it again.
fn usual_path(scene: &mut impl Scene) -> Path {
    const TRACES: usize = 5;
    const OF_A_LONG_ONE: usize = 3;
    const LONG: usize = 10_000;
    // Of files, with hundreds of thousands of instructions: their ways differ little, and a trace takes ten seconds.
    const VERY_LONG: usize = 100_000;
    let mut best = trace(scene);
    for number in 1..TRACES {
        if number >= OF_A_LONG_ONE && best.len() > LONG || best.len() > VERY_LONG && !best.sleeps {
            break;
        }
        let other = trace(scene);
        if (!other.sleeps, other.len()) < (!best.sleeps, best.len()) {
            best = other;
        }
    }
    best
}

fn trace(scene: &mut impl Scene) -> Path {
    let mut tracee = Tracee::new(scene.spawn(), scene.may_sleep());
    scene.begun();
    let mut path = Path { at: vec![], before: vec![], calls: vec![], sleeps: false };
    let mut places = HashMap::new();
    loop {
        path.before.push(places.insert(tracee.at(), path.len()));
        if tracee.is_at_a_system_call() {
            path.calls.push(path.len());
        }
        path.at.push(tracee.at());
        if step(&mut tracee, scene, 1, &mut path.sleeps) == Event::Mark {
            break;
        }
        if path.len().is_multiple_of(10_000) {
            beat();
        }
        assert!(path.len() < 2_000_000, "the operation has no end");
    }
    tracee.let_go();
    scene.check(End::Done);
    path
}

/// Whether a process came to `place`, by the address at which it stands. It met its fate there, or where it was instead.
fn attempt(
    scene: &mut impl Scene,
    place: &Place,
    path: &Path,
    fate: Fate,
    ways: Option<&[Way]>,
) -> bool {
    let mut tracee = Tracee::new(scene.spawn(), scene.may_sleep());
    scene.begun();
    let came = match place {
        Place::Instruction(count) => go_to(&mut tracee, scene, *count, path, ways),
        Place::Asleep => tracee.run(),
    };
    let (met, done) = match (place, came) {
        (Place::Asleep, Event::Asleep) => (true, false),
        (Place::Asleep, _) => (false, true),
        (Place::Instruction(count), Event::Mark) => (*count == path.len(), true),
        (Place::Instruction(count), _) => (path.at.get(*count) == Some(&tracee.at()), false),
    };
    match fate {
        Fate::Killed => {
            tracee.kill();
            scene.check(if done { End::KilledBehind } else { End::Killed });
        }
        Fate::Stopped => {
            scene.meanwhile();
            if !done {
                let event = tracee.run();
                assert_eq!(awake(event, &mut tracee, scene, &mut false), Event::Mark);
                scene.meanwhile(); // what it has received stays as it is
            }
            tracee.let_go();
            scene.check(End::Done);
        }
    }
    met
}

/// Lets it go on for `count` instructions: the quickest way, or one by one.
fn go_to(
    tracee: &mut Tracee,
    scene: &mut impl Scene,
    count: usize,
    path: &Path,
    ways: Option<&[Way]>,
) -> Event {
    let mut leaps = Vec::new();
    if let Some(ways) = ways {
        let mut place = count;
        while place > 0 {
            leaps.extend(ways[place].leaps.then_some(place));
            place = ways[place].from;
        }
    }
    let mut here = 0;
    for leap in leaps.into_iter().rev() {
        let from = ways.expect("a leap")[leap].from;
        let event = match step(tracee, scene, from - here, &mut false) {
            Event::Mark => Event::Mark,
            _ => run_to(tracee, scene, path.at[leap]),
        };
        if event == Event::Mark {
            return event;
        }
        here = leap;
    }
    step(tracee, scene, count - here, &mut false)
}

fn run_to(tracee: &mut Tracee, scene: &mut impl Scene, address: usize) -> Event {
    if tracee.at() == address && step(tracee, scene, 1, &mut false) == Event::Mark {
        return Event::Mark;
    }
    if tracee.at() == address {
        return Event::Stands;
    }
    let word = tracee.stop_at(address);
    let event = tracee.run();
    let event = awake(event, tracee, scene, &mut false);
    tracee.clear(address, word);
    event
}

/// `count` instructions, unless it comes to the mark before. It is woken where it sleeps, or would sleep: step by step, the time for
/// which it would has perhaps passed before.
fn step(tracee: &mut Tracee, scene: &mut impl Scene, count: usize, sleeps: &mut bool) -> Event {
    for _ in 0..count {
        let is_futex = scene.may_sleep() && tracee.is_at_a_futex();
        let event = tracee.step();
        if event == Event::Stands && is_futex {
            scene.wake();
        }
        if awake(event, tracee, scene, sleeps) == Event::Mark {
            return Event::Mark;
        }
    }
    Event::Stands
}

fn awake(
    mut event: Event,
    tracee: &mut Tracee,
    scene: &mut impl Scene,
    sleeps: &mut bool,
) -> Event {
    while event == Event::Asleep {
        *sleeps = true;
        scene.wake();
        event = tracee.wait();
    }
    event
}

/// Median, 99th percentile and maximum, for people.
fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    match times.len() {
        0 => "never".into(),
        _ => format!("p50 {:.1?} p99 {:.1?} max {:.1?}", at(50), at(99), at(100)),
    }
}

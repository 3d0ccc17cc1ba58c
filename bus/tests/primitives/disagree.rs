//! Two who do not ask for the same thing under one name.

use shmbus::OptionsError;
use shmbus::sync::{
    Barrier, Event, OnceCell, Reset, RobustMutex, RwLock, Semaphore, SyncCreateError,
    SyncOpenError, SyncOptions,
};

use crate::{NAME, place};

/// The parameter that differs, with what was found and what was asked for; and all of it in words.
fn told<T>(result: Result<T, SyncCreateError>) -> (&'static str, String, String, String) {
    let error = result.err().expect("it is another thing");
    let words = error.to_string();
    match error {
        SyncCreateError::Open(SyncOpenError::Parameter { parameter, found, expected, .. }) => {
            (parameter, found, expected, words)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_event_that_is_reset_otherwise_is_refused_with_both_ways() {
    let place = place();
    let open =
        |name, reset| Event::open_or_create_in(&place.directory, name, &place.options, reset);
    let _manual = open("manual", Reset::Manual).unwrap();
    let _automatic = open("automatic", Reset::Auto).unwrap();
    let (parameter, found, expected, words) = told(open("manual", Reset::Auto));
    assert_eq!((parameter, &*found, &*expected), ("reset", "manual", "auto"));
    assert_eq!(words, "manual has reset manual, not auto");
    let (_, found, expected, _) = told(open("automatic", Reset::Manual));
    assert_eq!((&*found, &*expected), ("auto", "manual"));
    assert!(open("manual", Reset::Manual).is_ok());
    assert!(Event::open_in(&place.directory, "manual").is_ok(), "it asks for neither");
}

#[test]
fn a_barrier_of_other_parties_is_refused_with_both_numbers() {
    let place = place();
    let open =
        |parties| Barrier::open_or_create_in(&place.directory, NAME, &place.options, parties);
    assert_eq!(open(3).unwrap().parties(), 3);
    let (parameter, found, expected, words) = told(open(2));
    assert_eq!((parameter, &*found, &*expected), ("parties", "3", "2"));
    assert_eq!(words, "some/thing has parties 3, not 2");
    assert_eq!(open(3).unwrap().parties(), 3);
    assert_eq!(Barrier::open_in(&place.directory, NAME).unwrap().parties(), 3);
}

/// Also when it has other permits by now.
#[test]
fn a_semaphore_that_began_with_other_permits_is_refused_with_both_numbers() {
    let place = place();
    let open =
        |permits| Semaphore::open_or_create_in(&place.directory, NAME, &place.options, permits);
    let semaphore = open(5).unwrap();
    semaphore.acquire().unwrap().consume();
    let (parameter, found, expected, words) = told(open(4));
    assert_eq!((parameter, &*found, &*expected), ("permits", "5", "4"));
    assert_eq!(words, "some/thing has permits 5, not 4");
    assert_eq!(open(5).unwrap().value(), 4);
}

/// Of the others, what differs is the type.
#[test]
fn data_of_another_size_or_alignment_is_refused_with_both() {
    let place = place();
    let (directory, options) = (&place.directory, &place.options);
    let refused = |result: Result<(), SyncCreateError>| {
        let Err(SyncCreateError::Open(SyncOpenError::Type { field, found, expected, .. })) = result
        else {
            panic!("{result:?}")
        };
        (field, found, expected)
    };
    let _mutex = RobustMutex::open_or_create_in(directory, "m", options, 0u64).unwrap();
    let mutex = RobustMutex::open_or_create_in(directory, "m", options, 0u32).map(drop);
    assert_eq!(refused(mutex), ("size", 8, 4));
    let _lock = RwLock::open_or_create_in(directory, "r", options, [0u32; 2]).unwrap();
    let lock = RwLock::open_or_create_in(directory, "r", options, 0u64).map(drop);
    assert_eq!(refused(lock), ("alignment", 4, 8));
    let _cell = OnceCell::<u64>::open_or_create_in(directory, "o", options).unwrap();
    let cell = OnceCell::<[u64; 2]>::open_or_create_in(directory, "o", options).map(drop);
    assert_eq!(refused(cell), ("size", 8, 16));
}

#[test]
fn what_could_never_be_passed_or_had_is_not_made() {
    let place = place();
    let two = SyncOptions { members_max: 2, ..SyncOptions::default() };
    let range = |result: Result<(), SyncCreateError>| {
        let Err(SyncCreateError::Options(OptionsError::Range { field, given, min, max })) = result
        else {
            panic!("{result:?}")
        };
        (field, given, min, max)
    };
    for parties in [0, 3, u32::MAX] {
        let expected = ("parties", parties.into(), 1, 2);
        let created = Barrier::create_in(&place.directory, NAME, &two, parties).map(drop);
        assert_eq!(range(created), expected);
        let opened = Barrier::open_or_create_in(&place.directory, NAME, &two, parties).map(drop);
        assert_eq!(range(opened), expected);
    }
    let max = u64::from(Semaphore::PERMITS_MAX);
    let created = Semaphore::create_in(&place.directory, NAME, &two, u32::MAX).map(drop);
    assert_eq!(range(created), ("permits", u32::MAX.into(), 0, max));
    assert!(place.directory.sync_objects().unwrap().is_empty(), "nothing was made");
    assert!(Barrier::create_in(&place.directory, NAME, &two, 2).is_ok());
}

//! The topic of `shmbus pub`: opened as it is, or created as asked for.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use shmbus::{
    CreateError, Directory, OpenError, Publishers, RawTopic, Schema, TopicInfo, TopicOptions,
};

use super::Arguments;
use crate::{input, schema};

/// What a new topic occupies at most, unless its depth is given or would be less than [`DEPTH_MIN`].
const MEMORY_MAX: u64 = 16 << 20;
const DEPTH_MIN: u64 = 8;
/// Most bytes of /etc/group.
const GROUPS_LEN: u64 = 1 << 20;
/// How often opening and creating are tried in turn while others create and remove the topic.
const TRIES: u32 = 100;

/// The topic, and whether it is new.
pub(super) fn open_or_create(
    directory: &Directory,
    arguments: &Arguments,
) -> Result<(RawTopic, bool)> {
    let name = &arguments.topic;
    let schema = arguments.schema.as_deref().map(schema::read).transpose()?;
    for _ in 0..TRIES {
        match RawTopic::open_in(directory, name) {
            Ok(topic) => {
                check(arguments, &topic.info(), schema.as_ref())?;
                check_files(directory, arguments)?;
                return Ok((topic, false));
            }
            Err(
                OpenError::NotFound { .. } | OpenError::Retired { .. } | OpenError::Corrupt { .. }, // creating replaces it if it can
            ) => {}
            Err(error) => return Err(error.into()),
        }
        let options = options(arguments, schema.as_ref())?;
        let created = match &schema {
            None if arguments.csv => {
                bail!("there is no topic {name}, and --csv needs its fields (--schema creates it)")
            }
            None => RawTopic::create_in(directory, name, &options),
            Some(schema) => RawTopic::create_with_schema_in(directory, name, &options, schema),
        };
        match created {
            Err(CreateError::Exists { .. }) => std::thread::yield_now(), // somebody else was faster
            created => return Ok((created?, true)),
        }
    }
    bail!("topic {name} comes and goes: it could be neither opened nor created in {TRIES} tries")
}

/// Of a new topic.
fn options(arguments: &Arguments, schema: Option<&Schema>) -> Result<TopicOptions> {
    let mut options = TopicOptions::default();
    options.max_len = arguments.max_len.or(arguments.chunk).unwrap_or(options.max_len);
    options.subscribers_max = arguments.subscribers_max.unwrap_or(options.subscribers_max);
    options.hold_blocks = arguments.hold_blocks;
    options.mode = arguments.mode.unwrap_or(options.mode);
    options.group = arguments.group;
    options.timestamp = arguments.timestamp;
    options.publishers = arguments.shared.map_or(Publishers::Exclusive, Publishers::Shared);
    match arguments.depth {
        Some(depth) => options.depth = depth,
        None => {
            // As if its messages were bytes: the same size of slot.
            let mut sized = options.clone();
            if let Some(schema) = schema.filter(|schema| !schema.is_sequence()) {
                sized.max_len = schema.size() as u32; // at most 2^30
            }
            while sized.depth > DEPTH_MIN && sized.memory::<[u8]>()?.total() > MEMORY_MAX {
                sized.depth /= 2;
            }
            options.depth = sized.depth;
        }
    }
    Ok(options)
}

/// A topic that is there must be what was asked for, as far as something was.
fn check(arguments: &Arguments, info: &TopicInfo, schema: Option<&Schema>) -> Result<()> {
    let topic = &arguments.topic;
    if schema.is_some() && schema != info.schema.as_ref() {
        let boxed = |schema: Option<&Schema>| schema.cloned().map(Box::new);
        let (name, found) = (topic.clone(), boxed(info.schema.as_ref()));
        return Err(OpenError::Type { name, found, expected: boxed(schema) }.into());
    }
    let asked = [
        ("depth", arguments.depth, info.depth),
        ("max-len", arguments.max_len.map(u64::from), info.payload_size.into()),
        ("subscribers-max", arguments.subscribers_max.map(u64::from), info.subscribers_max.into()),
        ("hold-blocks", arguments.hold_blocks.map(u64::from), info.hold_blocks.into()),
    ];
    for (option, asked, found) in asked {
        if let Some(asked) = asked
            && asked != found
        {
            bail!("topic {topic} exists, with --{option} {found}, not {asked}");
        }
    }
    if arguments.timestamp && !info.timestamp {
        bail!("topic {topic} exists, without --timestamp");
    }
    match (arguments.shared, info.publishers) {
        (Some(asked), Publishers::Exclusive) => {
            bail!("topic {topic} exists, without --shared {asked}")
        }
        (Some(asked), Publishers::Shared(found)) if asked != found => {
            bail!("topic {topic} exists, with --shared {found}, not {asked}")
        }
        _ => {}
    }
    match arguments.chunk {
        Some(len) if len > info.payload_size => {
            bail!("topic {topic} exists, and takes {} bytes, not {len}", info.payload_size)
        }
        _ => Ok(()),
    }
}

/// The files of a topic that is there must be as was asked for, too.
fn check_files(directory: &Directory, arguments: &Arguments) -> Result<()> {
    let topic = &arguments.topic;
    if arguments.mode.is_none() && arguments.group.is_none() {
        return Ok(());
    }
    let data = directory.path().join(topic).join(".topic/data");
    let found = data.symlink_metadata().with_context(|| format!("topic {topic}: stat data"))?;
    let mode = found.mode() & 0o777;
    match (arguments.mode, arguments.group) {
        (Some(asked), _) if asked != mode => {
            bail!("topic {topic} exists, with --mode {mode:o}, not {asked:o}")
        }
        (_, Some(asked)) if asked != found.gid() => {
            bail!("topic {topic} exists, with --group {}, not {asked}", found.gid())
        }
        _ => Ok(()),
    }
}

/// Permission bits.
pub(super) fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0o600..=0o777) => Ok(mode),
        _ => Err("octal bits from 600 to 777 are needed".into()),
    }
}

/// The number of a group.
pub(super) fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = input::read_text(Path::new("/etc/group"), GROUPS_LEN)
        .map_err(|error| format!("/etc/group: {error}"))?;
    number_of(&groups, text).ok_or_else(|| "there is no such group in /etc/group".into())
}

/// A line is name, password, number and members.
fn number_of(groups: &str, name: &str) -> Option<u32> {
    let mut lines = groups.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| {
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nfeeds:x:1005:alice,bob\nbroken\nfee:x:none:\n";
        assert_eq!(number_of(groups, "feeds"), Some(1005));
        assert_eq!(number_of(groups, "root"), Some(0));
        for none in ["feed", "fee", "broken", "x", "alice", ""] {
            assert_eq!(number_of(groups, none), None, "{none}");
        }
    }

    #[test]
    fn a_mode_is_octal_and_its_owners() {
        assert_eq!((mode("660"), mode("0640")), (Ok(0o660), Ok(0o640)));
        assert!(
            ["", "8", "0x1", "060", "1777", "u=rw"].into_iter().all(|text| mode(text).is_err())
        );
    }
}

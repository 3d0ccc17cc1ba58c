//! The header pages: written once by the creator, read once by whoever attaches, and believed in nothing.
//!
//! Pure functions over plain data: what they say about arbitrary bytes is a typed error or a [`Geometry`] whose every
//! offset lies inside the two files.

use crate::error::OpenError;
use crate::layout::{
    BYTE_ORDER, CONTROL_MAGIC, ControlHeader, DATA_MAGIC, DataHeader, GUARDED_LIMIT, PAGE,
    PAYLOAD_BYTES, PAYLOAD_FIXED, PAYLOAD_SEQUENCE, PUBLISHERS_EXCLUSIVE, PUBLISHERS_LIMIT,
    PUBLISHERS_SHARED, SUBSCRIBERS_LIMIT, TYPE_NAME_MAX, VERSION,
};
use crate::options::{TopicOptions, Wake};
use crate::payload::{Carried, Payload};
use crate::ring::Geometry;
use crate::schema::{Schema, TEXT_MAX};

/// What the header says about the messages and about whoever made it; the rest is in the [`Geometry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) instance: u64,
    pub(crate) created_ns: u64,
    pub(crate) wake: Wake,
    pub(crate) claim_timeout_ns: u64,
    pub(crate) carried: Carried,
}

/// The two header pages of a new topic.
pub(crate) fn write(
    carried: &Carried,
    geometry: &Geometry,
    options: &TopicOptions,
    instance: u64,
    created_ns: u64,
) -> (DataHeader, ControlHeader) {
    let mut header: DataHeader = bytemuck::Zeroable::zeroed();
    header.magic = DATA_MAGIC;
    header.version = VERSION;
    header.byte_order = BYTE_ORDER;
    header.instance = instance;
    header.data_len = geometry.data_len();
    header.control_len = geometry.control_len();
    header.created_ns = created_ns;
    header.depth = geometry.depth();
    header.block_len = geometry.block_len;
    header.slot_size = geometry.slot_size;
    header.blocks = geometry.blocks;
    header.spares = geometry.spares;
    header.publishers_max = geometry.publishers_max;
    header.subscribers_max = geometry.subscribers_max;
    header.hold_blocks = geometry.hold_blocks;
    header.publishers = if geometry.shared { PUBLISHERS_SHARED } else { PUBLISHERS_EXCLUSIVE };
    header.claim_timeout_ns = options.claim_timeout_ns();
    header.guarded = geometry.guarded.into();
    header.payload_max = geometry.payload_max;
    header.payload_align = carried.align() as u32;
    header.payload_offset = geometry.payload_offset;
    header.payload_kind = carried.kind();
    header.timestamp = geometry.timestamp.into();
    header.wake = options.wake as u32;
    if let Some(schema) = &carried.schema {
        header.type_version = schema.version();
        header.layout_hash = schema.layout_hash();
        header.schema_offset = geometry.schema_offset();
        header.schema_len = geometry.schema_len.into();
    }
    let name = carried.type_name();
    let name = &name.as_bytes()[..name.len().min(TYPE_NAME_MAX)];
    header.type_name_len = name.len() as u32;
    header.type_name[..name.len()].copy_from_slice(name);
    let control = ControlHeader {
        magic: CONTROL_MAGIC,
        version: VERSION,
        byte_order: BYTE_ORDER,
        instance,
        publishers_max: geometry.publishers_max,
        subscribers_max: geometry.subscribers_max,
    };
    (header, control)
}

/// Checks the headers of topic `name` against each other and against the lengths of the files. The schema is not in the
/// description yet: [`check_schema`].
///
/// Everything that follows from other fields is computed again and compared, so that nothing is used that this program
/// would not have written.
pub(crate) fn check(
    name: &str,
    header: &DataHeader,
    control: &ControlHeader,
    data_len: u64,
    control_len: u64,
) -> Result<(Geometry, Description), OpenError> {
    let name = || name.to_owned();
    let corrupt = |field| OpenError::Header { name: name(), field };
    for (file, magic, expected) in
        [("data", header.magic, DATA_MAGIC), ("ctl", control.magic, CONTROL_MAGIC)]
    {
        if magic != expected {
            return Err(OpenError::Foreign { name: name(), file });
        }
    }
    for (byte_order, version) in
        [(header.byte_order, header.version), (control.byte_order, control.version)]
    {
        if byte_order == BYTE_ORDER.swap_bytes() {
            return Err(OpenError::ByteOrder { name: name() });
        }
        if byte_order != BYTE_ORDER {
            return Err(corrupt("byte_order"));
        }
        if version != VERSION {
            return Err(OpenError::Version { name: name(), found: version, expected: VERSION });
        }
    }
    let fields = [
        ("instance", header.instance == control.instance),
        ("publishers", matches!(header.publishers, PUBLISHERS_EXCLUSIVE | PUBLISHERS_SHARED)),
        ("publishers_max", header.publishers_max == 1 || header.publishers == PUBLISHERS_SHARED),
        ("publishers_max", (1..=PUBLISHERS_LIMIT).contains(&header.publishers_max)),
        ("publishers_max", header.publishers_max == control.publishers_max),
        ("subscribers_max", (1..=SUBSCRIBERS_LIMIT).contains(&header.subscribers_max)),
        ("subscribers_max", header.subscribers_max == control.subscribers_max),
        ("hold_blocks", header.hold_blocks <= 4096),
        ("depth", header.depth.is_power_of_two() && (4..=1 << 27).contains(&header.depth)),
        ("payload_max", header.payload_max <= 1 << 30),
        ("payload_align", header.payload_align.is_power_of_two()),
        ("payload_align", u64::from(header.payload_align) <= PAGE),
        ("payload_kind", (PAYLOAD_FIXED..=PAYLOAD_SEQUENCE).contains(&header.payload_kind)),
        ("schema_len", header.schema_len <= TEXT_MAX),
        ("schema_len", (header.schema_len == 0) == (header.payload_kind == PAYLOAD_BYTES)),
        ("timestamp", header.timestamp <= 1),
        ("type_name_len", header.type_name_len as usize <= TYPE_NAME_MAX),
        ("guarded", header.guarded <= 1),
        ("guarded", header.guarded == 0 || header.publishers == PUBLISHERS_EXCLUSIVE),
        ("guarded", header.guarded == 0 || header.subscribers_max <= GUARDED_LIMIT),
    ];
    if let Some((field, _)) = fields.iter().find(|(_, holds)| !holds) {
        return Err(corrupt(field));
    }
    let wake = Wake::of(header.wake).ok_or_else(|| corrupt("wake"))?;
    let geometry = Geometry::new(
        header.depth,
        header.payload_max,
        header.payload_align,
        header.publishers_max,
        header.publishers == PUBLISHERS_SHARED,
        header.subscribers_max,
        header.hold_blocks,
        header.timestamp == 1,
    )
    .and_then(|geometry| match header.guarded {
        0 => Some(geometry),
        _ => geometry.guarded(header.payload_align),
    })
    .and_then(|geometry| geometry.with_schema(header.schema_len as u32))
    .ok_or_else(|| corrupt("depth"))?;
    let derived = [
        ("block_len", header.block_len == geometry.block_len),
        ("blocks", header.blocks == geometry.blocks),
        ("spares", header.spares == geometry.spares),
        ("slot_size", header.slot_size == geometry.slot_size),
        ("payload_offset", header.payload_offset == geometry.payload_offset),
        ("schema_offset", header.schema_offset == schema_offset(&geometry)),
        ("data_len", header.data_len == geometry.data_len()),
        ("control_len", header.control_len == geometry.control_len()),
    ];
    if let Some((field, _)) = derived.iter().find(|(_, holds)| !holds) {
        return Err(corrupt(field));
    }
    for (file, len, expected) in
        [("data", data_len, geometry.data_len()), ("ctl", control_len, geometry.control_len())]
    {
        if len < expected {
            return Err(OpenError::Short { name: name(), file, len, expected });
        }
    }
    let description = Description {
        instance: header.instance,
        created_ns: header.created_ns,
        wake,
        claim_timeout_ns: header.claim_timeout_ns,
        carried: Carried::bytes(),
    };
    Ok((geometry, description))
}

/// Where the schema stands; 0 where there is none.
fn schema_offset(geometry: &Geometry) -> u64 {
    if geometry.schema_len == 0 { 0 } else { geometry.schema_offset() }
}

/// What topic `name` carries: the schema of `text`, checked against the header, which [`check`] has passed.
pub(crate) fn check_schema(
    name: &str,
    header: &DataHeader,
    text: &[u8],
) -> Result<Carried, OpenError> {
    let corrupt = |field| OpenError::Header { name: name.to_owned(), field };
    let carried = if header.payload_kind == PAYLOAD_BYTES {
        Carried::bytes()
    } else {
        let text = str::from_utf8(text).map_err(|_| corrupt("schema"))?;
        Carried::of(Schema::parse(text).map_err(|_| corrupt("schema"))?)
    };
    let (payload_max, align) = (u64::from(header.payload_max), u64::from(header.payload_align));
    let schema = carried.schema.as_ref();
    let type_name = carried.type_name();
    let fields = [
        ("schema", carried.text().as_bytes() == text), // as this program writes it
        ("schema", carried.kind() == header.payload_kind),
        ("schema", carried.size().is_none_or(|size| size == payload_max)),
        ("schema", carried.schema.is_none() || carried.unit() <= payload_max),
        ("payload_align", carried.align() == align),
        ("layout_hash", header.layout_hash == schema.map_or(0, Schema::layout_hash)),
        ("type_version", header.type_version == schema.map_or(0, Schema::version)),
        (
            "type_name",
            header.type_name.get(..header.type_name_len as usize) == Some(type_name.as_bytes()),
        ),
    ];
    match fields.iter().find(|(_, holds)| !holds) {
        Some((field, _)) => Err(corrupt(field)),
        None => Ok(carried),
    }
}

/// Whether topic `name`, which carries `found`, is one of messages of type `T`.
pub(crate) fn check_type<T: Payload + ?Sized>(
    name: &str,
    found: &Carried,
) -> Result<(), OpenError> {
    if T::ANY {
        return Ok(());
    }
    let expected =
        T::carried().map_err(|source| OpenError::Description { name: name.to_owned(), source })?;
    if expected == *found {
        return Ok(());
    }
    Err(OpenError::Type {
        name: name.to_owned(),
        found: found.schema.clone().map(Box::new),
        expected: expected.schema.map(Box::new),
    })
}

//! Schema text, and the bytes of a message behind a NUL: whatever they are, an error or a schema that says of itself what was said.

use shmbus::Schema;

pub fn run(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let text = String::from_utf8_lossy(parts.next().unwrap_or(&[]));
    let message = parts.next().unwrap_or(&[]);
    let schema = match Schema::parse(&text) {
        Ok(schema) => schema,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let again = Schema::parse(&schema.to_string()).expect("what a schema says of itself is one");
    assert_eq!(again, schema);
    assert_eq!((again.layout_hash(), again.size()), (schema.layout_hash(), schema.size()));
    let _ = schema.ros2msg();
    // What is there of a message, or of as many as there are.
    let len = match schema.is_sequence() {
        true => message.len() - message.len() % (schema.size() as usize).max(1),
        false => message.len().min(schema.size() as usize),
    };
    let Ok(value) = schema.decode(&message[..len]) else { return };
    let mut bytes = vec![0xa5; len];
    // Refused where an enum has a value without a name.
    if schema.encode(&value, &mut bytes).is_ok() {
        let again = schema.decode(&bytes).expect("what was encoded is a message");
        let mut second = vec![0x5a; len];
        schema.encode(&again, &mut second).expect("what was encoded can be encoded");
        assert_eq!(second, bytes); // by their bytes, for the sake of NaN
    }
}

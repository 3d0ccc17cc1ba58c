#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| shmbus_fuzz::control::run(data));

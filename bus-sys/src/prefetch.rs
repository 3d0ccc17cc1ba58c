//! Hints to the cache.

#![allow(unsafe_code)] // an instruction that reads and writes nothing

/// Asks for the cache line of `address`, to be written soon: other cores give up theirs. A hint, which costs an instruction: any address will do,
/// mapped or not, and a processor that does not know it passes it over. Nothing where the architecture has none that is known here.
///
/// `PREFETCHW` in the x86 instruction set (a NOP before 2014 or so), `PRFM PSTL1KEEP` in that of Arm.
#[inline(always)]
pub fn for_writing(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: neither faults nor changes memory, registers or flags.
    unsafe {
        core::arch::asm!("prefetchw byte ptr [{}]", in(reg) address, options(nostack, preserves_flags))
    };
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("prfm pstl1keep, [{}]", in(reg) address, options(nostack, preserves_flags))
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do_and_nothing_changes() {
        let words = [7_u64; 64];
        for address in [std::ptr::null(), words.as_ptr().cast(), usize::MAX as *const u8] {
            for_writing(address);
        }
        assert_eq!(words, [7; 64]);
    }
}

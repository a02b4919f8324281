//! What an image must know of its binary: for which processor it is, and that it needs no other file.

/// Length of a 64-bit ELF header.
const HEADER_BYTES: usize = 64;
/// Length of one program header in it.
const SEGMENT_BYTES: usize = 56;
/// `e_machine` of x86-64 and of 64-bit Arm.
const MACHINE_AMD64: u16 = 62;
const MACHINE_ARM64: u16 = 183;
/// The program header that names a dynamic loader.
const SEGMENT_INTERPRETER: u32 = 3;

/// A processor, as Go and with it all container tools call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

/// Why a file cannot be the binary of an image.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ElfError {
    /// Something else.
    #[error("it is no 64-bit little-endian ELF program: build it for Linux")]
    Foreign,
    /// A processor that nobody asked for yet.
    #[error("it is for processor {0} (e_machine); images are made for amd64 and arm64")]
    Machine(u16),
    /// Would fail in the container with "no such file or directory".
    #[error(
        "it needs a dynamic loader, which an empty image has not: build with -C target-feature=+crt-static"
    )]
    Dynamic,
}

// === impl Architecture ===

impl Architecture {
    /// As in `GOARCH`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The architecture of a static program.
///
/// # Errors
/// When it is no such program.
pub fn architecture(binary: &[u8]) -> Result<Architecture, ElfError> {
    let header = binary.get(..HEADER_BYTES).ok_or(ElfError::Foreign)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return Err(ElfError::Foreign);
    }
    let architecture = match short(header, 18)? {
        MACHINE_AMD64 => Architecture::Amd64,
        MACHINE_ARM64 => Architecture::Arm64,
        other => return Err(ElfError::Machine(other)),
    };
    let table = usize::try_from(number::<8>(header, 32)?).map_err(|_| ElfError::Foreign)?;
    let count = usize::from(short(header, 56)?);
    let table = binary.get(table..).ok_or(ElfError::Foreign)?;
    for at in 0..count {
        let kind = number::<4>(table, at * SEGMENT_BYTES)?;
        if kind == u64::from(SEGMENT_INTERPRETER) {
            return Err(ElfError::Dynamic);
        }
    }
    Ok(architecture)
}

fn short(bytes: &[u8], at: usize) -> Result<u16, ElfError> {
    u16::try_from(number::<2>(bytes, at)?).map_err(|_| ElfError::Foreign)
}

/// A little-endian number of `N` bytes.
fn number<const N: usize>(bytes: &[u8], at: usize) -> Result<u64, ElfError> {
    let bytes = bytes.get(at..at + N).ok_or(ElfError::Foreign)?;
    Ok(bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A program of nothing but headers, with segments of the kinds given.
    pub(crate) fn program(machine: u16, segments: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        bytes[32..40].copy_from_slice(&(HEADER_BYTES as u64).to_le_bytes());
        bytes[56..58].copy_from_slice(&u16::try_from(segments.len()).unwrap().to_le_bytes());
        for kind in segments {
            bytes.extend(kind.to_le_bytes());
            bytes.extend([0; SEGMENT_BYTES - 4]);
        }
        bytes
    }

    #[test]
    fn only_static_programs_for_known_processors() {
        let cases = [
            ("amd64", program(MACHINE_AMD64, &[1, 2, 1]), Ok(Architecture::Amd64)),
            ("arm64", program(MACHINE_ARM64, &[1]), Ok(Architecture::Arm64)),
            (
                "dynamic",
                program(MACHINE_AMD64, &[6, SEGMENT_INTERPRETER, 1]),
                Err(ElfError::Dynamic),
            ),
            ("risc-v", program(243, &[1]), Err(ElfError::Machine(243))),
            ("a script", b"#!/bin/sh\n".to_vec(), Err(ElfError::Foreign)),
            ("empty", Vec::new(), Err(ElfError::Foreign)),
            ("cut off", program(MACHINE_AMD64, &[1, 1])[..100].to_vec(), Err(ElfError::Foreign)),
        ];
        for (name, binary, expected) in cases {
            assert_eq!(architecture(&binary), expected, "{name}");
        }
    }
}

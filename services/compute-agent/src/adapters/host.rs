//! What the host has and how busy it is, from `/proc` (proc(5)).

use std::{
    io,
    path::{Path, PathBuf},
};

/// The machine's boot id: new at every boot.
///
/// # Errors
/// `/proc` is not there.
pub async fn boot_id() -> io::Result<String> {
    Ok(tokio::fs::read_to_string("/proc/sys/kernel/random/boot_id").await?.trim().to_owned())
}

/// Load averages over one, five and fifteen minutes, in hundredths.
pub async fn load_hundredths() -> [u32; 3] {
    let text = tokio::fs::read_to_string("/proc/loadavg").await.unwrap_or_default();
    parse_load(&text)
}

fn parse_load(text: &str) -> [u32; 3] {
    // `0.51 0.46 0.29 1/123 4567`: always two decimals.
    let mut loads = text.split_whitespace();
    [(); 3].map(|()| {
        let digits: Option<String> = loads.next().map(|load| load.chars().filter(char::is_ascii_digit).collect());
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    })
}

/// The emulator: the one given, or the first of the distributions' names that exists.
///
/// # Errors
/// None exists; names where was looked.
pub async fn emulator(given: Option<&Path>) -> io::Result<PathBuf> {
    const NAMES: [&str; 2] = ["/usr/bin/qemu-system-x86_64", "/usr/libexec/qemu-kvm"];
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    for name in NAMES {
        if tokio::fs::try_exists(name).await.unwrap_or(false) {
            return Ok(name.into());
        }
    }
    let message = format!("no QEMU at {}: install qemu-system-x86, or set --emulator", NAMES.join(" or "));
    Err(io::Error::new(io::ErrorKind::NotFound, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_read_in_hundredths() {
        assert_eq!(parse_load("0.51 0.46 0.29 1/123 4567\n"), [51, 46, 29]);
        assert_eq!(parse_load("12.05 0.46 10.29 1/123 4567\n"), [1205, 46, 1029]);
        assert_eq!(parse_load(""), [0; 3]);
    }
}

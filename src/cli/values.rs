//! Parsers of the values of flags.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub(super) fn grouped(pairs: Vec<(String, IpAddr)>) -> Vec<(String, Vec<IpAddr>)> {
    let mut grouped: Vec<(String, Vec<IpAddr>)> = Vec::new();
    for (name, address) in pairs {
        match grouped.iter_mut().find(|(own, _)| *own == name) {
            Some((_, addresses)) => addresses.push(address),
            None => grouped.push((name, vec![address])),
        }
    }
    grouped
}

pub(super) fn name_and_address(text: &str) -> Result<(String, IpAddr), String> {
    let pair = text.split_once('=').and_then(|(name, address)| {
        Some((name.to_owned(), address.parse().ok()?)).filter(|(name, _)| !name.is_empty())
    });
    pair.ok_or_else(|| "write it like `keycloak.local=127.0.0.1`".into())
}

/// An address to listen on, or none.
#[derive(Clone, Copy, Debug)]
pub(super) struct AddressOrNone(pub Option<SocketAddr>);

pub(super) fn address_or_none(text: &str) -> Result<AddressOrNone, String> {
    if text == "none" {
        return Ok(AddressOrNone(None));
    }
    let address = text.parse().map_err(|_| "write it like `127.0.0.1:19001`, or `none`")?;
    Ok(AddressOrNone(Some(address)))
}

/// Parses a loopback address to listen on, or `none`.
pub(super) fn loopback_or_none(text: &str) -> Result<AddressOrNone, String> {
    let where_to = match text {
        "none" => None,
        text => Some(
            text.parse::<SocketAddr>().map_err(|_| "write it like `127.0.0.1:19000`, or `none`")?,
        ),
    };
    match where_to {
        Some(address) if !address.ip().is_loopback() => {
            Err("it is no loopback address; put a tunnel before it for other hosts".into())
        }
        where_to => Ok(AddressOrNone(where_to)),
    }
}

/// Parses a duration of the Gateway API (GEP-2257).
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let parsed: Result<crate::api::Duration, _> = text.parse();
    parsed
        .map(crate::api::Duration::get)
        .map_err(|_| "write it like `500ms`, `30s` or `1h30m`".into())
}

pub(super) fn size(text: &str) -> Result<usize, String> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "B"),
    };
    let factor = match unit {
        "B" => Some(1),
        "KiB" => Some(1 << 10),
        "MiB" => Some(1 << 20),
        _ => None,
    };
    let number: Option<usize> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .ok_or_else(|| "write it like `8192`, `32KiB` or `1MiB`".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_with_their_units() {
        // (text, bytes)
        let sizes = [("8192", Ok(8192)), ("32KiB", Ok(32 << 10)), ("1MiB", Ok(1 << 20))];
        for (text, want) in sizes {
            assert_eq!(size(text), want, "{text}");
        }
        for wrong in ["", "KiB", "8 KiB", "1GB", "-1", "99999999999999999999MiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
        assert_eq!(time("1m30s"), Ok(Duration::from_secs(90)));
        assert!(time("90").is_err());
    }
}

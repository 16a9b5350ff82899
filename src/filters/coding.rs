//! Content codings, and the choice of one by `Accept-Encoding` (RFC 9110 section 12.5.3).

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};

/// A content coding that responses can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Brotli,
    Gzip,
    Zstd,
}

impl Coding {
    /// Returns the name in `Content-Encoding`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn is_named(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.as_str())
            // RFC 9110 section 8.4.1.3.
            || self == Self::Gzip && name.eq_ignore_ascii_case("x-gzip")
    }
}

/// Returns the coding of `offered` that the client prefers; of equal ones the first. `None` if it
/// accepts none, or prefers an unencoded response.
pub(super) fn preferred(
    headers: &HeaderMap,
    offered: impl Iterator<Item = Coding>,
) -> Option<Coding> {
    let lines = headers.get_all(ACCEPT_ENCODING);
    let accepted = || {
        let lines = lines.iter().filter_map(|line| HeaderValue::to_str(line).ok());
        lines.flat_map(|line| line.split(',')).filter_map(weighted)
    };
    let weight_of = |is_it: &dyn Fn(&str) -> bool| {
        accepted().find(|(name, _)| is_it(name)).map(|(_, weight)| weight)
    };
    let others = weight_of(&|name| name == "*").unwrap_or(0);
    // Unencoded is always acceptable, so it is preferred only where the client says so.
    let unencoded = weight_of(&|name| name.eq_ignore_ascii_case("identity")).unwrap_or(0);
    let mut best = None;
    let mut most = unencoded.max(1) - 1;
    for coding in offered {
        let weight = weight_of(&|name| coding.is_named(name)).unwrap_or(others);
        if weight > most && weight >= unencoded {
            (best, most) = (Some(coding), weight);
        }
    }
    best
}

/// Parses a coding with its weight in thousandths. `None` if the weight is malformed.
fn weighted(item: &str) -> Option<(&str, u16)> {
    let Some((name, parameter)) = item.split_once(';') else { return Some((item.trim(), 1000)) };
    let (q, weight) = parameter.split_once('=')?;
    let weight = weight.trim();
    if !q.trim().eq_ignore_ascii_case("q") || !weight.starts_with(['0', '1']) || weight.len() > 5 {
        return None;
    }
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    let part = format!("{part:0<3}");
    let thousandths: u16 = part.parse().ok()?;
    let weight = whole.parse::<u16>().ok()? * 1000 + thousandths;
    (weight <= 1000 && whole.len() == 1).then_some((name.trim(), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_chooses_and_of_equals_the_first_is_taken() {
        use Coding::{Brotli, Gzip, Zstd};
        // (lines of Accept-Encoding, coding of gzip, br and zstd)
        let table: [(&[&'static str], Option<Coding>); 26] = [
            (&[], None),
            (&[""], None),
            (&["gzip"], Some(Gzip)),
            (&["x-gzip"], Some(Gzip)),
            (&["GZip"], Some(Gzip)),
            (&["br, gzip"], Some(Gzip)),
            (&["zstd, br"], Some(Brotli)),
            (&["gzip;q=0.5, br;q=0.8"], Some(Brotli)),
            (&["gzip;q=0.5", "zstd;q=0.501"], Some(Zstd)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0.000, *"], Some(Brotli)),
            (&["*"], Some(Gzip)),
            (&["*;q=0.1, zstd"], Some(Zstd)),
            (&["*;q=0, br"], Some(Brotli)),
            (&["*;q=0"], None),
            (&["identity"], None),
            (&["identity, gzip"], Some(Gzip)),
            (&["identity, gzip;q=0.9"], None),
            (&["identity;q=0.5, gzip;q=0.9, br;q=0.4"], Some(Gzip)),
            (&["identity;q=0, gzip;q=0.1"], Some(Gzip)),
            (&["deflate, compress"], None),
            (&["gzip ; Q=1.000 , br; q = 0.9"], Some(Gzip)),
            (&["gzip;q=2"], None),
            (&["gzip;q=1.001"], None),
            (&["gzip;q=0.0001"], None),
            (&["gzip;level=9, br;q=x, gzipped"], None),
        ];
        for (lines, want) in table {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(preferred(&headers, [Gzip, Brotli, Zstd].into_iter()), want, "{lines:?}");
        }
    }
}

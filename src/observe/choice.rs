//! Selection of the logged exchanges: `--access-log-status` and `--access-log-sample`.

use std::fmt::{Display, Formatter, Result as Formatted};
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::record::AccessRecord;

/// The selection of logged exchanges. The default is every exchange.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogChoice {
    pub statuses: Option<StatusRanges>,
    pub sample: Option<Sample>,
}

impl LogChoice {
    /// Returns true if an exchange is logged. Failed exchanges are exempt from sampling.
    pub(super) fn takes(&self, record: &AccessRecord<'_>) -> bool {
        if self.statuses.is_none() && self.sample.is_none() {
            return true;
        }
        let failed = !record.flags.is_empty() || record.status >= 500;
        let is_meant = match &self.statuses {
            None => true,
            // A forwarded connection, or a client that disconnected before the response.
            Some(_) if record.status == 0 => failed,
            Some(statuses) => statuses.contain(record.status),
        };
        is_meant && (failed || self.sample.is_none_or(|sample| sample.draws(fastrand::u32(..))))
    }
}

/// A list of statuses and ranges of statuses, such as `404,500-599` or `4xx`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StatusRanges(Vec<RangeInclusive<u16>>);

impl StatusRanges {
    fn contain(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

impl FromStr for StatusRanges {
    type Err = InvalidStatusRanges;

    fn from_str(text: &str) -> Result<Self, InvalidStatusRanges> {
        let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
        let range = |text: &str| match (text.strip_suffix("xx"), text.split_once('-')) {
            (Some(class), _) => {
                let first: u16 = class.parse().ok().filter(|class| (1..=5).contains(class))?;
                Some(first * 100..=first * 100 + 99)
            }
            (None, Some((first, last))) => {
                let (first, last) = (status(first)?, status(last)?);
                (first <= last).then_some(first..=last)
            }
            (None, None) => status(text).map(|status| status..=status),
        };
        let ranges: Option<Vec<_>> = text.split(',').map(|text| range(text.trim())).collect();
        ranges.map(Self).ok_or_else(|| InvalidStatusRanges(text.into()))
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{0}` are not statuses; use `400-599`, `5xx` or `404`, several with commas between them")]
pub(crate) struct InvalidStatusRanges(String);

/// A share of all exchanges, such as `1/10`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    of: u32,
    part: u32,
}

impl Sample {
    fn draws(self, ticket: u32) -> bool {
        ticket % self.of < self.part
    }
}

impl FromStr for Sample {
    type Err = InvalidSample;

    fn from_str(text: &str) -> Result<Self, InvalidSample> {
        let read = || {
            let (part, of) = text.split_once('/')?;
            let (part, of) = (part.parse().ok()?, of.parse().ok()?);
            (1 <= part && part <= of && of <= 1_000_000).then_some(Self { of, part })
        };
        read().ok_or_else(|| InvalidSample(text.into()))
    }
}

impl Display for Sample {
    fn fmt(&self, f: &mut Formatter<'_>) -> Formatted {
        write!(f, "{}/{}", self.part, self.of)
    }
}

#[derive(Debug, PartialEq, thiserror::Error)]
#[error("`{0}` is not a share; use `1/10` for one exchange of ten")]
pub(crate) struct InvalidSample(String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::record::tests::sample;
    use crate::stats::{ResponseFlag, ResponseFlags};

    #[test]
    fn what_is_asked_for_is_written_down_and_errors_are_not_left_to_chance() {
        let choice = |statuses: &str, sample: &str| LogChoice {
            statuses: (!statuses.is_empty()).then(|| statuses.parse().unwrap()),
            sample: (!sample.is_empty()).then(|| sample.parse().unwrap()),
        };
        let one_of_many = "1/1000000";
        // (statuses, sample, status, flags, selected)
        let table = [
            ("", "", 200, "-", true),
            ("", "1/1", 200, "-", true),
            ("", one_of_many, 500, "-", true),
            ("", one_of_many, 404, "NR", true),
            ("", one_of_many, 0, "DC", true),
            ("400-599", "", 200, "-", false),
            ("400-599", "", 404, "-", true),
            ("400-599", one_of_many, 503, "UF", true),
            ("404,5xx", "", 404, "-", true),
            ("404,5xx", "", 403, "-", false),
            ("404,5xx", "", 599, "-", true),
            ("200", "", 503, "UF", false),
            ("200", "", 0, "-", false),
            ("200", "", 0, "UF", true),
        ];
        for (statuses, sample_of, status, flags, want) in table {
            let flag = ResponseFlag::ALL.into_iter().find(|flag| flag.short() == flags);
            let flags = ResponseFlags::new(flag, false);
            let record = AccessRecord { status, flags, ..sample() };
            let choice = choice(statuses, sample_of);
            assert_eq!(choice.takes(&record), want, "{statuses} {sample_of} {status} {flags:?}");
        }
        let taken = (0..100).filter(|ticket| Sample { of: 10, part: 3 }.draws(*ticket)).count();
        assert_eq!(taken, 30);
    }

    #[test]
    fn words_that_say_nothing_are_refused() {
        for words in ["", "abc", "99", "600", "500-400", "6xx", "xx", "400-", "4xx,", "-1"] {
            assert!(words.parse::<StatusRanges>().is_err(), "{words}");
        }
        for words in ["", "1", "0/10", "11/10", "1/0", "a/b", "1/1000001", "10%"] {
            assert!(words.parse::<Sample>().is_err(), "{words}");
        }
        assert_eq!("1/10".parse::<Sample>().unwrap().to_string(), "1/10");
    }
}

//! Response flags: the reason why a request was not completed, by Envoy's names.
//!
//! A new flag is one line of the list below. Its counter, its metric and its names in logs and
//! traces follow from it; docs/configuration.md must name it (a test of `failure.rs` checks this).

/// Defines the enum and its names. The combination of each name with `URX` is a string constant, so
/// that writing a log line allocates nothing.
macro_rules! response_flags {
    ($($(#[$doc:meta])* $variant:ident = $short:literal,)*) => {
        /// The reason why a request was not completed. The variants have Envoy's long names.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum ResponseFlag {
            $($(#[$doc])* $variant,)*
        }

        impl ResponseFlag {
            /// All flags, in the order of their short names.
            pub(crate) const ALL: [Self; [$($short),*].len()] = [$(Self::$variant),*];

            /// Returns Envoy's short name.
            pub(crate) fn short(self) -> &'static str {
                match self { $(Self::$variant => $short,)* }
            }

            /// Returns Envoy's long name.
            pub(crate) fn long(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant),)* }
            }

            /// Returns the short name beside that of a delay, in Envoy's order.
            fn short_with_delay(self) -> &'static str {
                let (before, after) = match self {
                    $(Self::$variant => (concat!($short, ",DI"), concat!("DI,", $short)),)*
                };
                if self.is_before_delay() { before } else { after }
            }

            /// Returns the short name beside those of a delay and the retry limit.
            fn short_with_both(self) -> &'static str {
                let (before, after) = match self {
                    $(Self::$variant => (
                        concat!($short, ",DI,URX"),
                        concat!("DI,", $short, ",URX"),
                    ),)*
                };
                if self.is_before_delay() { before } else { after }
            }

            /// Returns the short name followed by that of the retry limit.
            fn short_with_retry_limit(self) -> &'static str {
                match self { $(Self::$variant => concat!($short, ",URX"),)* }
            }
        }
    };
}

response_flags! {
    DownstreamConnectionTermination = "DC",
    /// The request was delayed on purpose. Not a failure: it may come with another flag.
    DelayInjected = "DI",
    DownstreamProtocolError = "DPE",
    /// In this gateway: the drain timeout expired.
    DurationTimeout = "DT",
    /// The request was refused on purpose.
    FaultInjected = "FI",
    LocalReset = "LR",
    NoClusterFound = "NC",
    NoRouteFound = "NR",
    OverloadManagerTerminated = "OM",
    /// A limit of requests is reached.
    RateLimited = "RL",
    StreamIdleTimeout = "SI",
    UpstreamConnectionTermination = "UC",
    UpstreamConnectionFailure = "UF",
    NoHealthyUpstream = "UH",
    UpstreamMaxStreamDurationReached = "UMSDR",
    UpstreamOverflow = "UO",
    UpstreamProtocolError = "UPE",
    UpstreamRetryLimitExceeded = "URX",
    UpstreamRequestTimeout = "UT",
}

impl ResponseFlag {
    /// Returns true for the flags that Envoy writes before that of a delay.
    fn is_before_delay(self) -> bool {
        matches!(
            self,
            Self::LocalReset
                | Self::NoHealthyUpstream
                | Self::NoRouteFound
                | Self::UpstreamConnectionFailure
                | Self::UpstreamConnectionTermination
                | Self::UpstreamOverflow
                | Self::UpstreamRequestTimeout
        )
    }
}

/// The flags of one request: at most one, and in addition the retry limit and a delay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ResponseFlags {
    flag: Option<ResponseFlag>,
    retry_limit: bool,
    delay: bool,
}

impl ResponseFlags {
    /// Creates the flags. `retry_limit` is true if the last attempt would have been retried, but no
    /// retry was left.
    pub(crate) fn new(flag: Option<ResponseFlag>, retry_limit: bool) -> Self {
        Self { flag, retry_limit, delay: false }
    }

    /// Returns the flags of a request that was delayed on purpose, if `delay` is true.
    pub(crate) fn with_delay(self, delay: bool) -> Self {
        Self { delay, ..self }
    }

    pub(crate) fn is_empty(self) -> bool {
        self.flag.is_none() && !self.retry_limit && !self.delay
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        let limit = self.retry_limit.then_some(ResponseFlag::UpstreamRetryLimitExceeded);
        let delay = self.delay.then_some(ResponseFlag::DelayInjected);
        self.flag.into_iter().chain(limit).chain(delay)
    }

    /// Returns the short names separated by commas, `-` if there are none.
    pub(crate) fn short(self) -> &'static str {
        if self.delay {
            return match (self.flag, self.retry_limit) {
                (None, false) => ResponseFlag::DelayInjected.short(),
                (None, true) => "DI,URX",
                (Some(flag), false) => flag.short_with_delay(),
                (Some(flag), true) => flag.short_with_both(),
            };
        }
        match (self.flag, self.retry_limit) {
            (None, false) => "-",
            (None, true) => ResponseFlag::UpstreamRetryLimitExceeded.short(),
            (Some(flag), false) => flag.short(),
            (Some(flag), true) => flag.short_with_retry_limit(),
        }
    }
}

impl From<Option<ResponseFlag>> for ResponseFlags {
    fn from(flag: Option<ResponseFlag>) -> Self {
        Self::new(flag, false)
    }
}

impl From<ResponseFlag> for ResponseFlags {
    fn from(flag: ResponseFlag) -> Self {
        Self::new(Some(flag), false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names_of_their_own_in_order() {
        let short = ResponseFlag::ALL.map(ResponseFlag::short);
        assert!(short.is_sorted_by(|a, b| a < b), "{short:?}");
        for (place, flag) in ResponseFlag::ALL.into_iter().enumerate() {
            assert_eq!(flag as usize, place, "its counter is found by its number");
            assert!(flag.long().len() > flag.short().len(), "{flag:?}");
        }
    }

    #[test]
    fn a_request_may_have_none_one_or_two() {
        use ResponseFlag::{UpstreamConnectionFailure, UpstreamRetryLimitExceeded};
        let (uf, urx) = (UpstreamConnectionFailure, UpstreamRetryLimitExceeded);
        // (flag, retry limit reached, short names in the log, flags)
        let table: [(_, _, _, &[ResponseFlag]); 4] = [
            (None, false, "-", &[]),
            (Some(uf), false, "UF", &[uf]),
            (None, true, "URX", &[urx]),
            (Some(uf), true, "UF,URX", &[uf, urx]),
        ];
        for (flag, limit, short, each) in table {
            let flags = ResponseFlags::new(flag, limit);
            assert_eq!(flags.short(), short);
            assert_eq!(flags.iter().collect::<Vec<_>>(), each);
            assert_eq!(flags.is_empty(), each.is_empty());
        }
        // (flag, retry limit reached, short names in the log of a request that was delayed)
        let table = [
            (None, false, "DI"),
            (Some(uf), false, "UF,DI"),
            (Some(ResponseFlag::FaultInjected), false, "DI,FI"),
            (None, true, "DI,URX"),
            (Some(uf), true, "UF,DI,URX"),
        ];
        for (flag, limit, short) in table {
            let flags = ResponseFlags::new(flag, limit).with_delay(true);
            assert_eq!(flags.short(), short);
            assert!(!flags.is_empty() && flags.iter().any(|of| of == ResponseFlag::DelayInjected));
        }
    }
}

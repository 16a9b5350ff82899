//! Writer of metric families as text: the Prometheus format and OpenMetrics.
//!
//! Envoy has counters whose names do not end in `_total`, which OpenMetrics does not allow. A
//! scraper prefers OpenMetrics, and a dashboard must find the same names in both formats. Therefore
//! such a counter has the type `unknown` in OpenMetrics, which allows any name and is the same to
//! PromQL.

use std::fmt::{Display, Write};
use std::time::SystemTime;

use crate::stats::{BUCKETS, Level, Times};

/// The format of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    /// Returns the format for a request's `Accept`. The default is the Prometheus format, which a
    /// browser displays.
    pub(crate) fn wanted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Prometheus,
        }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels as written between the braces; built once for many families.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn new(name: &str, value: &str) -> Self {
        Self::default().and(name, value)
    }

    /// Returns these labels and one more.
    pub(super) fn and(&self, name: &str, value: &str) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
        Self(text)
    }
}

/// Returns one sample without labels.
pub(super) fn alone<V>(value: V) -> [(Labels, V); 1] {
    [(Labels::default(), value)]
}

pub(super) fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

pub(super) fn level(level: &Level) -> [(Labels, u64); 1] {
    alone(level.value())
}

/// The text under construction.
#[derive(Debug)]
pub(super) struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(64 << 10), format }
    }

    pub(super) fn counters<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        match (self.format, name.strip_suffix("_total")) {
            (Format::Prometheus, _) => self.family(name, "counter", help),
            (Format::OpenMetrics, Some(family)) => self.family(family, "counter", help),
            (Format::OpenMetrics, None) => self.family(name, "unknown", help),
        }
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    pub(super) fn gauges<V: Display>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, V)>,
    ) {
        self.family(name, "gauge", help);
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    /// Writes histograms; buckets and sums are in milliseconds.
    pub(super) fn times(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (Labels, Times)>,
    ) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (labels, times) in samples {
            let bounds = BUCKETS.iter().map(ToString::to_string);
            for (bound, count) in bounds.chain(["+Inf".into()]).zip(times.counts) {
                self.sample(&bucket, &labels.and("le", &bound), count);
            }
            self.sample(&format!("{name}_sum"), &labels, times.milliseconds);
            self.sample(&format!("{name}_count"), &labels, times.count());
        }
    }

    /// Returns the complete text.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a `String` cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &Labels, value: impl Display) {
        self.text.push_str(name);
        if !labels.0.is_empty() {
            self.text.push('{');
            self.text.push_str(&labels.0);
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(write: impl Fn(&mut Exposition)) -> [String; 2] {
        [Format::Prometheus, Format::OpenMetrics].map(|format| {
            let mut text = Exposition::new(format);
            write(&mut text);
            text.finish()
        })
    }

    #[test]
    fn a_counter_is_found_under_its_name_in_both_forms() {
        let [prometheus, open] = both(|text| {
            text.counters("a_total", "As.", [(Labels::default(), 1)]);
            text.counters("b_xx", "Bs.", [(Labels::new("class", "2"), 3)]);
        });
        let want = "# HELP a_total As.\n# TYPE a_total counter\na_total 1\n\
                    # HELP b_xx Bs.\n# TYPE b_xx counter\nb_xx{class=\"2\"} 3\n";
        assert_eq!(prometheus, want);
        let want = "# HELP a As.\n# TYPE a counter\na_total 1\n\
                    # HELP b_xx Bs.\n# TYPE b_xx unknown\nb_xx{class=\"2\"} 3\n# EOF\n";
        assert_eq!(open, want);
    }

    #[test]
    fn a_label_cannot_end_early() {
        let labels = Labels::new("a", "x\"} 1\n\\").and("b", "");
        assert_eq!(labels.0, "a=\"x\\\"} 1\\n\\\\\",b=\"\"");
    }

    #[test]
    fn a_histogram_has_every_bucket() {
        let mut times = Times { milliseconds: 12.5, ..Times::default() };
        times.counts[18..].fill(2);
        let [text, _] = both(|text| {
            text.times("t", "Ts.", [(Labels::new("n", "x"), times.clone())]);
        });
        let lines: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(lines[0], "t_bucket{n=\"x\",le=\"0.5\"} 0");
        assert_eq!(lines[18], "t_bucket{n=\"x\",le=\"3600000\"} 2");
        let last = ["t_bucket{n=\"x\",le=\"+Inf\"} 2", "t_sum{n=\"x\"} 12.5", "t_count{n=\"x\"} 2"];
        assert_eq!(lines[19..], last);
    }

    #[test]
    fn openmetrics_is_for_those_who_ask() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.2";
        assert_eq!(Format::wanted(prometheus), Format::OpenMetrics);
        assert_eq!(Format::wanted("text/html,*/*;q=0.8"), Format::Prometheus);
        assert_eq!(Format::wanted(""), Format::Prometheus);
    }
}

//! Certificates for a person: a line of a table each, and below it what has no room there.

use crate::control::{Certificates, Facts, Row, Verdict};

use crate::cli::text::{Colour, cell, paint, wrapped};

/// Columns of NAMES, KEY, ISSUER, FROM and UNTIL; two spaces between them, and LEFT at the end.
const WIDTHS: [usize; 5] = [30, 7, 24, 10, 10];
const INDENT: &str = "    ";

/// All of them, at most 100 columns wide.
pub(super) fn table(certificates: &Certificates, colours: bool) -> String {
    if certificates.certificates.is_empty() {
        return "no listener has the protocol HTTPS, so there is no certificate to serve\n".into();
    }
    let mut text = line(["NAMES", "KEY", "ISSUER", "FROM", "UNTIL"], "LEFT");
    for row in &certificates.certificates {
        text.push_str(&of_row(row, colours));
    }
    text
}

fn of_row(row: &Row, colours: bool) -> String {
    let colour = match row.verdict {
        Verdict::Good => Colour::Green,
        Verdict::Overdue | Verdict::Unknown => Colour::Yellow,
        Verdict::Broken | Verdict::Expired | Verdict::Missing | Verdict::NotYetValid => Colour::Red,
    };
    let mut text = match &row.certificate {
        Some(facts) => line(
            [
                &names(&facts.names),
                &facts.key_type,
                &short(&facts.issuer),
                day(&facts.not_before),
                day(&facts.not_after),
            ],
            &paint(&left(facts.seconds_left), colour, colours),
        ),
        None => {
            let wanted = row.listeners.iter().find_map(|on| on.hostname.as_deref());
            let dashes = ["-"; 4];
            let [key, issuer, from, until] = dashes;
            let left = paint("none", colour, colours);
            line([wanted.unwrap_or("-"), key, issuer, from, until], &left)
        }
    };
    for on in &row.listeners {
        let host = on.hostname.as_ref().map(|host| format!(", host {host}"));
        let on = format!("listener {}, port {}{}", on.name, on.port, host.unwrap_or_default());
        text.push_str(&wrapped(INDENT, &on));
    }
    if let Some(facts) = &row.certificate {
        text.push_str(&details(facts, row.secret.as_deref()));
    } else if let Some(secret) = &row.secret {
        text.push_str(&wrapped(INDENT, secret));
    }
    for problem in &row.problems {
        for line in wrapped(&format!("{INDENT}! "), problem).lines() {
            text.push_str(&paint(line, colour, colours && row.verdict != Verdict::Good));
            text.push('\n');
        }
    }
    text
}

fn line(cells: [&str; 5], last: &str) -> String {
    let mut text = String::new();
    for (content, width) in cells.into_iter().zip(WIDTHS) {
        text.push_str(&cell(content, width));
        text.push_str("  ");
    }
    text + last + "\n"
}

/// Where it comes from, and what the table has cut off.
fn details(facts: &Facts, secret: Option<&str>) -> String {
    let from = match (&facts.lineage, secret) {
        (Some(lineage), _) => format!("lineage {lineage}"),
        (None, Some(secret)) => format!("in {secret}"),
        (None, None) => facts.file.clone(),
    };
    let mut text = wrapped(INDENT, &format!("{from}, serial {}", facts.serial));
    if names(&facts.names) != facts.names.join(", ") {
        text.push_str(&wrapped(INDENT, &format!("names {}", facts.names.join(", "))));
    }
    text
}

/// As many names as there is room for, and how many more there are.
fn names(all: &[String]) -> String {
    let joined = all.join(", ");
    if joined.chars().count() <= WIDTHS[0] {
        return joined;
    }
    match all {
        [first, others @ ..] if !others.is_empty() => {
            let more = format!(" +{}", others.len());
            let room = WIDTHS[0] - more.chars().count();
            format!("{}{more}", cell(first, room.min(first.chars().count())))
        }
        _ => joined,
    }
}

/// Organisation and common name of an issuer: `Let's Encrypt R11`. A comma within one of them cuts
/// it short.
fn short(issuer: &str) -> String {
    let part = |key: &str| issuer.split(", ").find_map(|part| part.strip_prefix(key));
    let parts: Vec<_> = [part("O="), part("CN=")].into_iter().flatten().collect();
    if parts.is_empty() { issuer.to_owned() } else { parts.join(" ") }
}

fn day(stamp: &str) -> &str {
    stamp.split('T').next().unwrap_or_default()
}

/// Days, and hours where there are few days.
fn left(seconds: i64) -> String {
    const HOUR: i64 = 3600;
    const DAY: i64 = 24 * HOUR;
    match seconds {
        0..HOUR => format!("{} min", seconds / 60),
        _ if seconds.abs() < 3 * DAY => format!("{} h", seconds / HOUR),
        _ => format!("{} d", seconds / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::text::WIDTH;
    use crate::control::On;

    fn row(verdict: Verdict, days: i64) -> Row {
        Row {
            verdict,
            listeners: vec![On {
                name: "envoy-gateway-system/eg/https".into(),
                hostname: None,
                port: 8443,
            }],
            secret: Some("Secret envoy-gateway-system/eih-tls-cert".into()),
            certificate: Some(Facts {
                names: vec!["example.org".into(), "www.example.org".into()],
                lineage: Some("example.org".into()),
                file: "/etc/letsencrypt/live/example.org/fullchain.pem".into(),
                issuer: "C=US, O=Let's Encrypt, CN=R11".into(),
                key_type: "ECDSA".into(),
                serial: "04ab".into(),
                not_before: "2026-10-01T00:00:00Z".into(),
                not_after: "2026-12-30T00:00:00Z".into(),
                seconds_left: days * 86_400,
            }),
            problems: Vec::new(),
        }
    }

    #[test]
    fn the_table_reads_like_this() {
        let overdue =
            Row { problems: vec!["its renewal is overdue".into()], ..row(Verdict::Overdue, 12) };
        let missing = Row {
            verdict: Verdict::Missing,
            listeners: vec![On {
                name: "shop/eg/tls".into(),
                hostname: Some("shop.test".into()),
                port: 443,
            }],
            secret: Some("Secret shop/tls".into()),
            certificate: None,
            problems: vec!["no certbot lineage of the name `shop.test`".into()],
        };
        let text = table(&Certificates { certificates: vec![overdue, missing] }, false);
        let want = "\
NAMES                           KEY      ISSUER                    FROM        UNTIL       LEFT
example.org, www.example.org    ECDSA    Let's Encrypt R11         2026-10-01  2026-12-30  12 d
    listener envoy-gateway-system/eg/https, port 8443
    lineage example.org, serial 04ab
    ! its renewal is overdue
shop.test                       -        -                         -           -           none
    listener shop/eg/tls, port 443, host shop.test
    Secret shop/tls
    ! no certbot lineage of the name `shop.test`
";
        assert_eq!(text, want);
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut wide = row(Verdict::Broken, -40_000);
        let facts = wide.certificate.as_mut().unwrap();
        facts.names = (0..30).map(|n| format!("{n}-{}.example.org", "name".repeat(10))).collect();
        facts.issuer = "O=".to_owned() + &"An Authority of Many Words ".repeat(5);
        facts.serial = "ab".repeat(20);
        wide.problems = vec!["something is wrong with it, and it takes long to say ".repeat(9)];
        let text = table(&Certificates { certificates: vec![wide] }, false);
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{} columns: {line}", line.chars().count());
        }
        assert!(text.contains(" +29 ") && text.contains("29-name"), "{text}");
    }

    #[test]
    fn the_colour_tells_how_it_is() {
        // (verdict, escape)
        let table_of = [
            (Verdict::Good, "\x1b[32m12 d\x1b[0m"),
            (Verdict::Overdue, "\x1b[33m12 d\x1b[0m"),
            (Verdict::Expired, "\x1b[31m12 d\x1b[0m"),
        ];
        for (verdict, want) in table_of {
            let certificates = Certificates { certificates: vec![row(verdict, 12)] };
            assert!(table(&certificates, true).contains(want), "{verdict:?}");
            assert!(!table(&certificates, false).contains('\x1b'), "{verdict:?}");
        }
    }

    #[test]
    fn what_is_left_is_told_in_the_unit_that_matters() {
        // (seconds, text)
        let table = [
            (61 * 86_400, "61 d"),
            (3 * 86_400, "3 d"),
            (3 * 86_400 - 1, "71 h"),
            (3600, "1 h"),
            (3599, "59 min"),
            (0, "0 min"),
            (-7200, "-2 h"),
            (-40 * 86_400, "-40 d"),
        ];
        for (seconds, want) in table {
            assert_eq!(left(seconds), want, "{seconds}");
        }
    }

    #[test]
    fn an_issuer_is_known_by_organisation_and_name() {
        // (distinguished name, in the table)
        let table = [
            ("C=US, O=Let's Encrypt, CN=R11", "Let's Encrypt R11"),
            ("CN=Stories Root", "Stories Root"),
            ("O=ACME", "ACME"),
            ("OU=odd", "OU=odd"),
            ("", ""),
        ];
        for (issuer, want) in table {
            assert_eq!(short(issuer), want, "{issuer}");
        }
    }
}

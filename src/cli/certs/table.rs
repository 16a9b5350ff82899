//! The table of certificates: a line for each, with its faults below.

use unicode_width::UnicodeWidthStr;

use crate::cli::output::Columns;
use crate::cli::table::{Cell, Column, Step, Table};
use crate::cli::text::{Colour, Screen};
use crate::control::{CertificateFacts, CertificateRow, CertificateState, Certificates, ShownOn};

const INDENT: &str = "    ";
/// The width of the column with names; longer lists get their own line.
const NAMES: usize = 30;
/// Steps for the columns NAMES, LEFT, UNTIL, FROM, ISSUER and KEY.
const NARROWER: [Step; 5] = [(4, 17), (3, 0), (5, 0), (4, 0), (0, 8)];

/// Draws the table of all certificates.
pub(super) fn table(certificates: &Certificates, columns: Columns, screen: Screen) -> String {
    if certificates.certificates.is_empty() {
        let nothing = "no certificates: no listener of a Gateway has the protocol HTTPS, or TLS that \
                       ends here";
        return screen.wrapped("", nothing);
    }
    match columns {
        Columns::All => wide(certificates, screen),
        Columns::Usual => usual(certificates, screen),
    }
}

fn usual(certificates: &Certificates, screen: Screen) -> String {
    let heads = ["NAMES", "LEFT", "UNTIL", "FROM", "ISSUER", "KEY"];
    let mut table = Table::new(heads.map(Column::new)).narrowed_by(NARROWER);
    for row in &certificates.certificates {
        let mut cells = cells(row);
        if let Some(names) = names(row) {
            cells[0] = Cell::list(names.to_vec()).at_most(NAMES);
        }
        table.row(cells);
        table.across(below(row, screen));
    }
    table.drawn(screen)
}

/// Draws a line for each certificate and listener, with all columns.
fn wide(certificates: &Certificates, screen: Screen) -> String {
    let heads = ["NAMES", "LEFT", "UNTIL", "FROM", "ISSUER", "KEY"];
    let more = ["LISTENER", "PORT", "HOST", "SOURCE", "SERIAL", "PROBLEMS"];
    let mut table = Table::new(heads.into_iter().chain(more).map(Column::new));
    for row in &certificates.certificates {
        for on in &row.listeners {
            let serial = row.certificate.as_ref().map_or("-", |facts| &facts.serial);
            table.row(cells(row).into_iter().chain([
                (&on.name).into(),
                on.port.to_string().into(),
                on.hostname.as_deref().unwrap_or("*").into(),
                source(row).into(),
                serial.into(),
                Cell::list(row.problems.clone()),
            ]));
        }
    }
    table.drawn(screen)
}

/// Returns the cells NAMES, LEFT, UNTIL, FROM, ISSUER and KEY.
fn cells(row: &CertificateRow) -> [Cell; 6] {
    let colour = colour(row.verdict);
    match &row.certificate {
        Some(facts) => [
            Cell::list(facts.names.clone()),
            Cell::from(left(facts.seconds_left)).in_colour(colour),
            day(&facts.not_after).into(),
            day(&facts.not_before).into(),
            short(&facts.issuer).into(),
            (&facts.key_type).into(),
        ],
        None => {
            let wanted = || row.listeners.iter().find_map(|on| on.hostname.as_deref());
            let name = match names(row) {
                Some(names) => Cell::list(names.to_vec()),
                None => wanted().unwrap_or("-").into(),
            };
            let left = Cell::from("none").in_colour(colour);
            [name, left, "-".into(), "-".into(), "-".into(), "-".into()]
        }
    }
}

/// The names of a certificate, or the hostnames that have none.
fn names(row: &CertificateRow) -> Option<&[String]> {
    let wanted = Some(&*row.hostnames).filter(|names| !names.is_empty());
    row.certificate.as_ref().map(|facts| &*facts.names).or(wanted)
}

fn colour(verdict: CertificateState) -> Colour {
    match verdict {
        CertificateState::Good => Colour::Green,
        CertificateState::Overdue | CertificateState::Unknown => Colour::Yellow,
        CertificateState::Broken
        | CertificateState::BrokenChain
        | CertificateState::Expired
        | CertificateState::Missing
        | CertificateState::NotForHost
        | CertificateState::NotYetValid
        | CertificateState::Uncovered => Colour::Red,
    }
}

/// Formats the listeners of a certificate, its source, all of its names, and its faults.
fn below(row: &CertificateRow, screen: Screen) -> String {
    let mut text = String::new();
    for ShownOn { name, hostname, port } in &row.listeners {
        let host = hostname.as_ref().map(|host| format!(", host {host}")).unwrap_or_default();
        text.push_str(&screen.wrapped(INDENT, &format!("listener {name}, port {port}{host}")));
    }
    match &row.certificate {
        Some(facts) => {
            let from = format!("{}, serial {}", source(row), facts.serial);
            text.push_str(&screen.wrapped(INDENT, &from));
            let names = facts.names.join(", ");
            // On a narrower screen, the table has not enough room for them.
            let is_narrow = screen.width.is_some_and(|width| width < 48);
            if names.width() > NAMES || (is_narrow && facts.names.len() > 1) {
                text.push_str(&screen.wrapped(INDENT, &format!("names {names}")));
            }
        }
        None if row.secret.is_some() => text.push_str(&screen.wrapped(INDENT, &source(row))),
        None => {}
    }
    if row.certificate.is_none() && row.hostnames.join(", ").width() > NAMES {
        text.push_str(&screen.wrapped(INDENT, &format!("names {}", row.hostnames.join(", "))));
    }
    for note in &row.notes {
        text.push_str(&screen.wrapped(INDENT, note));
    }
    let is_good = row.verdict == CertificateState::Good;
    for problem in &row.problems {
        for line in screen.wrapped(&format!("{INDENT}! "), problem).lines() {
            match is_good {
                true => text.push_str(line),
                false => text.push_str(&screen.paint(line, colour(row.verdict))),
            }
            text.push('\n');
        }
    }
    text
}

/// Returns the source of the certificate, or the expected source of a missing one.
fn source(row: &CertificateRow) -> String {
    let facts = row.certificate.as_ref();
    match (facts.and_then(|facts| facts.lineage.as_ref()), &row.secret, facts) {
        (Some(lineage), _, _) => format!("lineage {lineage}"),
        (None, Some(secret), Some(_)) => format!("in {secret}"),
        (None, Some(secret), None) => secret.clone(),
        (None, None, Some(CertificateFacts { file, .. })) => file.clone(),
        (None, None, None) => "-".into(),
    }
}

/// Returns organisation and common name of an issuer, such as `Let's Encrypt R11`. A comma within
/// them truncates the value.
fn short(issuer: &str) -> String {
    let part = |key: &str| issuer.split(", ").find_map(|part| part.strip_prefix(key));
    let parts: Vec<_> = [part("O="), part("CN=")].into_iter().flatten().collect();
    if parts.is_empty() { issuer.to_owned() } else { parts.join(" ") }
}

fn day(stamp: &str) -> &str {
    stamp.split('T').next().unwrap_or_default()
}

/// Formats the time left in days, or in hours or minutes if it is short.
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

    fn row(verdict: CertificateState, days: i64) -> CertificateRow {
        CertificateRow {
            verdict,
            listeners: vec![ShownOn {
                name: "envoy-gateway-system/eg/https".into(),
                hostname: None,
                port: 8443,
            }],
            secret: Some("Secret envoy-gateway-system/eih-tls-cert".into()),
            certificate: Some(CertificateFacts {
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
            ..CertificateRow::default()
        }
    }

    #[test]
    fn the_table_reads_like_this() {
        let overdue = CertificateRow {
            problems: vec!["its renewal is overdue".into()],
            ..row(CertificateState::Overdue, 12)
        };
        let missing = CertificateRow {
            verdict: CertificateState::Missing,
            listeners: vec![ShownOn {
                name: "shop/eg/tls".into(),
                hostname: Some("shop.test".into()),
                port: 443,
            }],
            secret: Some("Secret shop/tls".into()),
            certificate: None,
            problems: vec!["no certbot lineage of the name `shop.test`".into()],
            ..CertificateRow::default()
        };
        let uncovered = CertificateRow {
            verdict: CertificateState::Uncovered,
            listeners: overdue.listeners.clone(),
            hostnames: vec!["blog.test".into(), "wiki.test".into()],
            problems: vec!["no certificate is for these".into()],
            ..CertificateRow::default()
        };
        let private = CertificateRow {
            notes: vec!["its root is not known here".into()],
            ..row(CertificateState::Good, 80)
        };
        let certificates =
            Certificates { certificates: vec![overdue, missing, uncovered, private] };
        let want = "\
NAMES                         LEFT  UNTIL       FROM        ISSUER             KEY
example.org, www.example.org  12 d  2026-12-30  2026-10-01  Let's Encrypt R11  ECDSA
    listener envoy-gateway-system/eg/https, port 8443
    lineage example.org, serial 04ab
    ! its renewal is overdue
shop.test                     none  -           -           -                  -
    listener shop/eg/tls, port 443, host shop.test
    Secret shop/tls
    ! no certbot lineage of the name `shop.test`
blog.test, wiki.test          none  -           -           -                  -
    listener envoy-gateway-system/eg/https, port 8443
    ! no certificate is for these
example.org, www.example.org  80 d  2026-12-30  2026-10-01  Let's Encrypt R11  ECDSA
    listener envoy-gateway-system/eg/https, port 8443
    lineage example.org, serial 04ab
    its root is not known here
";
        assert_eq!(table(&certificates, Columns::Usual, Screen::default()), want);
        let narrow = "\
NAMES                         LEFT  UNTIL
example.org, www.example.org  12 d  2026-12-30
";
        let got = table(&certificates, Columns::Usual, Screen::of_width(50));
        assert!(got.starts_with(narrow), "{got}");
        let wide = table(&certificates, Columns::All, Screen::default());
        assert_eq!(wide.lines().count(), 5, "{wide}");
        assert!(wide.contains("no certbot lineage of the name `shop.test`\n"), "{wide}");
    }

    #[test]
    fn no_line_is_wider_than_a_terminal() {
        let mut wide = row(CertificateState::Broken, -40_000);
        let facts = wide.certificate.as_mut().unwrap();
        facts.names = (0..30).map(|n| format!("{n}-{}.example.org", "name".repeat(10))).collect();
        facts.issuer = "O=".to_owned() + &"An Authority of Many Words ".repeat(5);
        facts.serial = "ab".repeat(20);
        wide.problems = vec!["something is wrong with it, and it takes long to say ".repeat(9)];
        let certificates = Certificates { certificates: vec![wide] };
        for width in [20, 60, 80, 100, 200] {
            let text = table(&certificates, Columns::Usual, Screen::of_width(width));
            for line in text.lines() {
                assert!(line.width() <= width, "{} of {width} columns: {line}", line.width());
            }
            assert!(text.contains(" +29 "), "{text}");
        }
        let text = table(&certificates, Columns::Usual, Screen::default());
        assert!(text.contains("29-name"), "{text}");
    }

    #[test]
    fn the_colour_tells_how_it_is() {
        // (verdict, colour code)
        let table_of = [
            (CertificateState::Good, "\x1b[32m12 d\x1b[0m"),
            (CertificateState::Overdue, "\x1b[33m12 d\x1b[0m"),
            (CertificateState::Expired, "\x1b[31m12 d\x1b[0m"),
        ];
        for (verdict, want) in table_of {
            let certificates = Certificates { certificates: vec![row(verdict, 12)] };
            let coloured = Screen { colours: true, ..Screen::default() };
            let text = table(&certificates, Columns::Usual, coloured);
            assert!(text.contains(want), "{verdict:?}: {text}");
            let text = table(&certificates, Columns::Usual, Screen::default());
            assert!(!text.contains('\x1b'), "{verdict:?}: {text}");
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
        // (distinguished name, text in the table)
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

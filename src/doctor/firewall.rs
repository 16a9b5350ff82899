//! Check of the firewall of this host: ufw if it is active, else nftables. A firewall of the
//! provider is not visible from here.

use serde_json::Value;

use super::finding::Finding;
use super::program::{Said, Silent, ask};
use super::subject::Subject;

const CHECK: &str = "firewall";

pub(super) fn look(subject: &Subject) -> Finding {
    let mut ports = vec![subject.http_port];
    if subject.has_tls() {
        ports.push(subject.https_port);
    }
    let ufw = ask("ufw", &["status", "verbose"]);
    if let Some(finding) = judge_ufw(&ufw, &ports) {
        return finding;
    }
    judge_nftables(&ask("nft", &["--json", "list", "ruleset"]), &ports)
}

/// `None` if ufw is not installed or not active.
fn judge_ufw(said: &Result<Said, Silent>, ports: &[u16]) -> Option<Finding> {
    let said = match said {
        Ok(said) if said.success => said,
        Ok(_) | Err(Silent::Failed) => return Some(unreadable("ufw")),
        Err(Silent::NotInstalled) => return None,
    };
    if !said.stdout.lines().any(|line| line.trim() == "Status: active") {
        return None;
    }
    let closed: Vec<_> = ports.iter().filter(|port| !ufw_lets_in(&said.stdout, **port)).collect();
    Some(match closed.is_empty() {
        true => Finding::ok(CHECK, "ufw lets clients in"),
        false => Finding::fail(
            CHECK,
            format!("ufw does not allow port {}", list(&closed)),
            format!("ufw allow {}/tcp", list(&closed)),
        ),
    })
}

/// True if ufw admits a port: decided by the first rule for the port from any source, else by the
/// default.
fn ufw_lets_in(status: &str, port: u16) -> bool {
    for line in status.lines() {
        let actions = [(" ALLOW", true), (" LIMIT", true), (" DENY", false), (" REJECT", false)];
        let found = actions.into_iter().find_map(|(action, lets_in)| {
            let (to, rest) = line.split_once(action)?;
            Some((to, rest, lets_in))
        });
        let Some((to, rest, lets_in)) = found else { continue };
        // `ALLOW OUT` and `ALLOW FWD` concern other directions.
        let from = rest.trim_start().strip_prefix("IN ").unwrap_or(rest).trim_start();
        if from.starts_with("Anywhere") && is_for(to, port) {
            return lets_in;
        }
    }
    status.lines().any(|line| line.starts_with("Default: allow (incoming)"))
}

/// True if the target of a rule includes the port. Examples: `80,443/tcp (Edge Gateway)`,
/// `80:90/tcp (v6)`, `443`, `Anywhere`.
fn is_for(to: &str, port: u16) -> bool {
    let word = to.split(' ').next().unwrap_or_default();
    if word == "Anywhere" {
        return true;
    }
    let (ports, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let within = |range: &str| {
        let (first, last) = range.split_once(':').unwrap_or((range, range));
        first.parse().is_ok_and(|first: u16| first <= port)
            && last.parse().is_ok_and(|last: u16| port <= last)
    };
    protocol == "tcp" && ports.split(',').any(within)
}

/// Judges the rules without following jumps: by the default policy, and by whether any rule admits
/// the port.
fn judge_nftables(said: &Result<Said, Silent>, ports: &[u16]) -> Finding {
    let said = match said {
        Ok(said) if said.success => said,
        Ok(_) | Err(Silent::Failed) => return unreadable("nftables"),
        Err(Silent::NotInstalled) => {
            return Finding::ok(
                CHECK,
                "neither ufw nor nftables is there; the provider may have one",
            );
        }
    };
    let ruleset: Value = serde_json::from_str(&said.stdout).unwrap_or_default();
    let Some(objects) = ruleset["nftables"].as_array() else { return unreadable("nftables") };
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    let dropping = chains
        .filter(|chain| chain["hook"] == "input" && chain["policy"] == "drop")
        .find(|chain| chain["family"] != "arp" && chain["family"] != "bridge");
    let Some(chain) = dropping else {
        return Finding::ok(CHECK, "no chain of nftables drops incoming packets by default");
    };
    let rules: Vec<_> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let closed: Vec<_> =
        ports.iter().filter(|port| !rules.iter().any(|rule| admits(rule, **port))).collect();
    if closed.is_empty() {
        return Finding::ok(CHECK, "nftables drops by default, and has rules for our ports");
    }
    let word = |name: &str| chain[name].as_str().unwrap_or_default().to_owned();
    Finding::warn(
        CHECK,
        format!("nftables drops by default, and no rule speaks of port {}", list(&closed)),
        Some(format!(
            "nft insert rule {} {} {} tcp dport {{ {} }} accept",
            word("family"),
            word("table"),
            word("name"),
            list(&closed)
        )),
    )
}

/// True if a rule matches the port and does not drop or reject.
fn admits(rule: &Value, port: u16) -> bool {
    let steps = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    let refuses =
        steps.iter().any(|step| step.get("drop").is_some() || step.get("reject").is_some());
    let matches = steps.iter().map(|step| &step["match"]).any(|test| {
        let is_of_port = test["left"]["payload"]["field"] == "dport";
        is_of_port && test["op"] != "!=" && names(&test["right"], port.into())
    });
    matches && !refuses
}

/// True if the value contains the port: a port, a range, or a set of both.
fn names(right: &Value, port: u64) -> bool {
    if let Some(members) = right["set"].as_array() {
        return members.iter().any(|member| names(member, port));
    }
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => {
            first.as_u64().is_some_and(|first| first <= port)
                && last.as_u64().is_some_and(|last| port <= last)
        }
        _ => right.as_u64() == Some(port),
    }
}

fn unreadable(name: &str) -> Finding {
    let what = format!("{name} does not show its rules; it may show them to root");
    Finding::warn(CHECK, what, Some("sudo edge-gateway doctor".into()))
}

fn list(ports: &[&u16]) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Rating;

    fn said(stdout: &str) -> Result<Said, Silent> {
        Ok(Said { success: true, stdout: stdout.into(), stderr: String::new() })
    }

    #[test]
    fn ufw_decides_by_its_first_rule() {
        let active = |rules: &str| {
            format!(
                "Status: active\nLogging: on (low)\nDefault: deny (incoming), allow (outgoing)\n\n\
                 To                         Action      From\n\
                 --                         ------      ----\n{rules}"
            )
        };
        // (rules, port 80 is open, port 443 is open)
        let table = [
            ("", false, false),
            ("22/tcp                     ALLOW IN    Anywhere\n", false, false),
            ("80/tcp                     ALLOW IN    Anywhere\n", true, false),
            ("80,443/tcp (Edge Gateway)  ALLOW IN    Anywhere\n", true, true),
            ("1:1024/tcp                 ALLOW       Anywhere\n", true, true),
            ("443                        LIMIT IN    Anywhere\n", false, true),
            ("80/udp                     ALLOW IN    Anywhere\n", false, false),
            ("80/tcp                     ALLOW IN    10.0.0.0/8\n", false, false),
            ("80/tcp                     ALLOW OUT   Anywhere\n", false, false),
            (
                "80/tcp                     DENY IN     Anywhere\n\
                 Anywhere                   ALLOW IN    Anywhere\n",
                false,
                true,
            ),
            ("80/tcp (v6)                ALLOW IN    Anywhere (v6)\n", true, false),
            ("80,443/tcp (A long name (v6)) ALLOW IN    Anywhere (v6)\n", true, true),
        ];
        for (rules, http, https) in table {
            let status = active(rules);
            assert_eq!(ufw_lets_in(&status, 80), http, "80: {rules}");
            assert_eq!(ufw_lets_in(&status, 443), https, "443: {rules}");
        }
        let status = active("").replace("deny (incoming)", "allow (incoming)");
        assert!(ufw_lets_in(&status, 80));

        let found = judge_ufw(&said(&active("")), &[80, 443]).unwrap();
        assert_eq!(found.rating, Rating::Fail);
        assert_eq!(found.repair.as_deref(), Some("ufw allow 80,443/tcp"));
        assert_eq!(judge_ufw(&said("Status: inactive\n"), &[80]), None);
        assert_eq!(judge_ufw(&Err(Silent::NotInstalled), &[80]), None);
        let refused = Ok(Said { stderr: "ERROR: You need to be root".into(), ..Said::default() });
        assert_eq!(judge_ufw(&refused, &[80]).unwrap().rating, Rating::Warn);
    }

    #[test]
    fn nftables_is_suspected_where_it_drops_and_names_no_port() {
        let chain = |policy: &str| {
            format!(
                r#"{{"chain": {{"family": "inet", "table": "filter", "name": "input",
                "hook": "input", "policy": "{policy}"}}}}"#
            )
        };
        let rule = |right: &str, rating: &str| {
            format!(
                r#"{{"rule": {{"family": "inet", "chain": "input", "expr": [{{"match": {{"op": "==",
                "left": {{"payload": {{"protocol": "tcp", "field": "dport"}}}},
                "right": {right}}}}}, {{"{rating}": null}}]}}}}"#
            )
        };
        let (ok, warn) = (Rating::Ok, Rating::Warn);
        // (objects, rating)
        let table = [
            (vec![], ok),
            (vec![chain("accept")], ok),
            (vec![chain("drop")], warn),
            (vec![chain("drop"), rule("80", "accept")], warn),
            (vec![chain("drop"), rule("80", "accept"), rule("443", "accept")], ok),
            (vec![chain("drop"), rule(r#"{"set": [22, 80, 443]}"#, "accept")], ok),
            (vec![chain("drop"), rule(r#"{"range": [1, 1024]}"#, "accept")], ok),
            (vec![chain("drop"), rule(r#"{"set": [{"range": [80, 443]}]}"#, "accept")], ok),
            (vec![chain("drop"), rule(r#"{"set": [80, 443]}"#, "drop")], warn),
        ];
        for (objects, want) in table {
            let text = format!(r#"{{"nftables": [{}]}}"#, objects.join(","));
            assert_eq!(judge_nftables(&said(&text), &[80, 443]).rating, want, "{text}");
        }
        let text = format!(r#"{{"nftables": [{}]}}"#, chain("drop"));
        let found = judge_nftables(&said(&text), &[80, 443]);
        let repair = "nft insert rule inet filter input tcp dport { 80,443 } accept";
        assert_eq!(found.repair.as_deref(), Some(repair));
        assert_eq!(judge_nftables(&said("nonsense"), &[80]).rating, Rating::Warn);
        assert_eq!(judge_nftables(&Err(Silent::NotInstalled), &[80]).rating, Rating::Ok);
        assert_eq!(judge_nftables(&Err(Silent::Failed), &[80]).rating, Rating::Warn);
    }
}

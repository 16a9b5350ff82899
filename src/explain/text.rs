//! The text form of the outcome, for a terminal.

use std::fmt::{self, Display, Formatter};

use super::{Effect, Explained, Lost};

impl Display for Explained {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.request)?;
        if let Some(listener) = &self.listener {
            let hostname = listener.hostname.as_deref().unwrap_or("any host");
            writeln!(f, "  listener  {} ({hostname}, port {})", listener.name, listener.port)?;
            if let Some(policy) = &listener.policy {
                writeln!(f, "            ClientTrafficPolicy {policy}")?;
            }
            for names in &listener.certificates {
                writeln!(f, "            certificate for {names}")?;
            }
        }
        lost(f, "not", &self.other_listeners)?;
        if let Some(rule) = &self.rule {
            writeln!(f, "  rule      {rule}")?;
        }
        if let Some(matched) = &self.matched {
            writeln!(f, "  match     {matched}")?;
        }
        lost(f, "lost", &self.lost)?;
        if self.left_out > 0 {
            writeln!(f, "            and {} more", self.left_out)?;
        }
        effects(f, "  ", &self.filters)?;
        if let Some(balanced) = &self.balanced {
            writeln!(f, "  balanced  {balanced}")?;
        }
        for backend in &self.backends {
            writeln!(f, "  backend   {:.0} % to {}", backend.percent, backend.what)?;
            effects(f, "    ", &backend.filters)?;
            for endpoint in &backend.endpoints {
                writeln!(f, "    endpoint  {endpoint}")?;
            }
        }
        if let Some(forwarded) = &self.forwarded {
            let mut lines = forwarded.lines();
            writeln!(f, "  forwards  {}", lines.next().unwrap_or_default())?;
            for line in lines {
                writeln!(f, "            {line}")?;
            }
        }
        if let Some(answer) = &self.answer {
            match answer.status {
                0 => write!(f, "  no answer")?,
                status => write!(f, "  answer    {status}")?,
            }
            if let Some(flag) = &answer.flag {
                write!(f, " ({flag})")?;
            }
            writeln!(f, ": {}", answer.why)?;
            for header in &answer.headers {
                writeln!(f, "            {header}")?;
            }
        }
        Ok(())
    }
}

fn lost(f: &mut Formatter<'_>, title: &str, lost: &[Lost]) -> fmt::Result {
    lost.iter().try_for_each(|Lost { what, why }| writeln!(f, "    {title:<7} {what}: {why}"))
}

fn effects(f: &mut Formatter<'_>, indent: &str, effects: &[Effect]) -> fmt::Result {
    for Effect { filter, changes } in effects {
        let mut lines = filter.lines();
        writeln!(f, "{indent}filter    {}", lines.next().unwrap_or_default())?;
        for line in lines {
            writeln!(f, "{indent}          {line}")?;
        }
        for change in changes {
            writeln!(f, "{indent}            {change}")?;
        }
    }
    Ok(())
}

//! Writes man pages and completions into a directory, from the definition of the command line.
//!
//! ```text
//! cargo run --example generate -- target/package
//! ```
//!
//! What the definition does not know (files, environment, signals) is in `man/`, in roff.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// The sections of edge-gateway(1) that stand below the generated ones.
const SECTIONS: &str = include_str!("man/edge-gateway.1.roff");
const CONFIGURATION: &str = include_str!("man/edge-gateway.yaml.5");

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from).ok_or("name a directory")?;
    fs::create_dir_all(&directory)?;
    let mut root = edge_gateway::cli::command().disable_help_subcommand(true);
    root.build();

    man(&directory, &root, "edge-gateway", SECTIONS)?;
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        let see = ".SH \"SEE ALSO\"\n\\fBedge\\-gateway\\fR(1), \\fBedge\\-gateway.yaml\\fR(5)\n";
        man(&directory, command, &format!("edge-gateway-{}", command.get_name()), see)?;
    }
    fs::write(directory.join("edge-gateway.yaml.5"), CONFIGURATION)?;

    // (shell, the name that its packages' completions have)
    let shells = [
        (Shell::Bash, "edge-gateway.bash"),
        (Shell::Fish, "edge-gateway.fish"),
        (Shell::Zsh, "_edge-gateway"),
    ];
    for (shell, name) in shells {
        let mut file = fs::File::create(directory.join(name))?;
        clap_complete::generate(shell, &mut root.clone(), "edge-gateway", &mut file);
    }
    Ok(())
}

/// Writes `NAME.1`: the page of `command`, then `more`.
fn man(directory: &Path, command: &Command, name: &str, more: &str) -> Result<(), Box<dyn Error>> {
    let page = Man::new(command.clone())
        .title(name)
        .manual("User commands")
        .source(format!("edge-gateway {}", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    page.render_title(&mut out)?;
    page.render_name_section(&mut out)?;
    page.render_synopsis_section(&mut out)?;
    page.render_description_section(&mut out)?;
    page.render_options_section(&mut out)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut out)?;
    }
    if let Some(examples) = command.get_after_help() {
        out.extend(example_section(&examples.to_string()).into_bytes());
    }
    out.extend(more.as_bytes());
    fs::write(directory.join(format!("{name}.1")), out)?;
    Ok(())
}

/// The text below a command's help, line by line as it stands there.
fn example_section(text: &str) -> String {
    let mut section = String::from(".SH EXAMPLES\n.nf\n");
    for line in text.lines().filter(|line| *line != "Examples:") {
        // `\&` keeps a line that begins with a dot from being a request.
        section.push_str("\\&");
        section.push_str(&line.trim_start().replace('\\', "\\e").replace('-', "\\-"));
        section.push('\n');
    }
    section.push_str(".fi\n");
    section
}

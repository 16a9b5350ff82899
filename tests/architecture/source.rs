//! One source file as the rules see it: without what is compiled for tests alone.

use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// A file of `src`.
pub(crate) struct Source {
    pub file: PathBuf,
    /// The lines of the file, those of items under `#[cfg(test)]` empty.
    pub lines: Vec<String>,
    /// Names of what is defined in it, or re-exported by it with the path that it stands for.
    pub names: Vec<Name>,
    /// Paths that its code uses: `crate::a::B`, `super::c`, `child::d`.
    pub paths: Vec<Vec<String>>,
    /// Modules for tests alone that have files of their own.
    pub test_modules: Vec<String>,
}

pub(crate) struct Name {
    pub name: String,
    /// None: it is defined here.
    pub stands_for: Option<Vec<String>>,
}

impl Source {
    pub(crate) fn parse(file: &Path, text: &str) -> Self {
        let parsed = syn::parse_file(text);
        let parsed = parsed.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let mut reader = Reader::default();
        reader.visit_file(&parsed);
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        for (from, to) in reader.tests {
            lines[from - 1..to].fill(String::new());
        }
        let code: TokenStream = lines.join("\n").parse().expect("what is left is still Rust");
        let mut paths = reader.used;
        paths_in(code, &reader.modules, &mut paths);
        let (names, test_modules) = (reader.names, reader.test_modules);
        Self { file: file.to_owned(), lines, names, paths, test_modules }
    }
}

#[derive(Default)]
struct Reader {
    /// First and last lines of items for tests.
    tests: Vec<(usize, usize)>,
    names: Vec<Name>,
    used: Vec<Vec<String>>,
    modules: Vec<String>,
    test_modules: Vec<String>,
    /// Inside of another item: names are not the file's.
    depth: usize,
}

impl<'a> Visit<'a> for Reader {
    fn visit_item(&mut self, item: &'a syn::Item) {
        let attributes = attributes(item);
        if attributes.iter().any(is_for_tests) {
            self.skip(item);
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.test_modules.push(module.ident.to_string());
            }
            return;
        }
        if self.depth == 0 {
            if let Some(name) = defined(item) {
                self.names.push(Name { name, stands_for: None });
            }
            if let syn::Item::Mod(module) = item
                && module.content.is_none()
            {
                self.modules.push(module.ident.to_string());
            }
        }
        self.depth += 1;
        visit::visit_item(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        let mut all = Vec::new();
        flatten(&item.tree, &[], &mut all);
        for (path, name) in all {
            // Of its own item; what stands below it is no name of the file.
            if self.depth == 1 && !matches!(item.vis, syn::Visibility::Inherited) {
                self.names.push(Name { name, stands_for: Some(path.clone()) });
            }
            self.used.push(path);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
        if item.attrs.iter().any(is_for_tests) {
            return self.skip(item);
        }
        visit::visit_impl_item_fn(self, item);
    }
}

impl Reader {
    fn skip(&mut self, item: &impl Spanned) {
        let span = item.span();
        self.tests.push((span.start().line, span.end().line));
    }
}

/// `#[cfg(test)]`; what is compiled for tests and for something else is code like any other.
fn is_for_tests(attribute: &syn::Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Ident>().is_ok_and(|only| only == "test")
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::*;
    match item {
        Const(item) => &item.attrs,
        Enum(item) => &item.attrs,
        ExternCrate(item) => &item.attrs,
        Fn(item) => &item.attrs,
        ForeignMod(item) => &item.attrs,
        Impl(item) => &item.attrs,
        Macro(item) => &item.attrs,
        Mod(item) => &item.attrs,
        Static(item) => &item.attrs,
        Struct(item) => &item.attrs,
        Trait(item) => &item.attrs,
        TraitAlias(item) => &item.attrs,
        Type(item) => &item.attrs,
        Union(item) => &item.attrs,
        Use(item) => &item.attrs,
        _ => &[],
    }
}

fn defined(item: &syn::Item) -> Option<String> {
    use syn::Item::*;
    Some(match item {
        Const(item) => item.ident.to_string(),
        Enum(item) => item.ident.to_string(),
        Fn(item) => item.sig.ident.to_string(),
        Macro(item) => item.ident.as_ref()?.to_string(),
        Static(item) => item.ident.to_string(),
        Struct(item) => item.ident.to_string(),
        Trait(item) => item.ident.to_string(),
        Type(item) => item.ident.to_string(),
        Union(item) => item.ident.to_string(),
        _ => return None,
    })
}

/// Every path of a `use`, with the name that it has here.
fn flatten(tree: &syn::UseTree, before: &[String], all: &mut Vec<(Vec<String>, String)>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        syn::UseTree::Path(path) => flatten(&path.tree, &with(&path.ident), all),
        syn::UseTree::Name(name) if name.ident == "self" => {
            all.push((before.to_vec(), before.last().cloned().unwrap_or_default()));
        }
        syn::UseTree::Name(name) => all.push((with(&name.ident), name.ident.to_string())),
        syn::UseTree::Rename(name) => all.push((with(&name.ident), name.rename.to_string())),
        syn::UseTree::Glob(_) => all.push((before.to_vec(), "*".into())),
        syn::UseTree::Group(group) => {
            group.items.iter().for_each(|tree| flatten(tree, before, all));
        }
    }
}

/// Paths in code, in what macros are given too. Those of `use` were read before.
fn paths_in(code: TokenStream, modules: &[String], paths: &mut Vec<Vec<String>>) {
    let tokens: Vec<TokenTree> = code.into_iter().collect();
    let ident = |at: usize| match tokens.get(at) {
        Some(TokenTree::Ident(ident)) => Some(ident.to_string()),
        _ => None,
    };
    let is = |at: usize, want: char| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == want);
    let is_colons = |at: usize| is(at, ':') && is(at + 1, ':');
    let mut at = 0;
    while at < tokens.len() {
        // `pub(in room)` says who may use a thing, and uses nothing.
        let is_visibility = at > 0 && ident(at - 1).is_some_and(|before| before == "pub");
        if let TokenTree::Group(group) = &tokens[at]
            && !is_visibility
        {
            paths_in(group.stream(), modules, paths);
        }
        let Some(first) = ident(at) else {
            at += 1;
            continue;
        };
        if first == "use" {
            at += tokens[at..]
                .iter()
                .take_while(
                    |token| !matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';'),
                )
                .count();
            continue;
        }
        let is_later = at >= 2 && is_colons(at - 2);
        let mut path = vec![first];
        at += 1;
        while is_colons(at) && ident(at + 2).is_some() {
            path.extend(ident(at + 2));
            at += 3;
        }
        let begins = ["crate", "super", "self"].contains(&&*path[0]) || modules.contains(&path[0]);
        if path.len() > 1 && begins && !is_later {
            paths.push(path);
        }
    }
}

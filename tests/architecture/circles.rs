//! Circles of files inside one room: files that cannot be understood one after the other.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;

/// The files of each room that are in a circle, with the room's name.
pub(crate) fn circles(sources: &[(Vec<String>, Source)]) -> BTreeMap<String, Vec<Vec<String>>> {
    let rooms: BTreeSet<&String> = sources.iter().filter_map(|(path, _)| path.first()).collect();
    let of_room = |room: &String| {
        let files: BTreeMap<&[String], &Source> = sources
            .iter()
            .filter(|(path, _)| path.first() == Some(room))
            .map(|(path, source)| (&path[..], source))
            .collect();
        let arrows = files.iter().map(|(path, source)| {
            let targets = source.paths.iter().filter_map(|used| target(path, used, &files, 0));
            (*path, targets.filter(|target| target != path).collect())
        });
        in_circles(&arrows.collect())
    };
    rooms.into_iter().map(|room| (room.clone(), of_room(room))).collect()
}

type Files<'a> = BTreeMap<&'a [String], &'a Source>;

/// The file of this room in which the thing stands that `used` names in the file at `from`: what is
/// re-exported stands where it is defined.
fn target<'a>(
    from: &[String],
    used: &[String],
    files: &Files<'a>,
    depth: usize,
) -> Option<&'a [String]> {
    if depth > 8 {
        return None;
    }
    let mut full: Vec<String> = match used.first()?.as_str() {
        "crate" => Vec::new(),
        "super" => from[..from.len() - 1].to_vec(),
        "self" => from.to_vec(),
        // A module below, or a name of somebody else, which leads nowhere here.
        child if files.contains_key(&[from, &[child.to_owned()]].concat()[..]) => {
            [from, &used[..1]].concat()
        }
        _ => return None,
    };
    for part in &used[1..] {
        match part.as_str() {
            "super" => drop(full.pop()),
            "self" => {}
            part => full.push(part.to_owned()),
        }
    }
    let length = (1..=full.len()).rev().find(|length| files.contains_key(&full[..*length]))?;
    let (path, source) = files.get_key_value(&full[..length])?;
    let name = full.get(length);
    let exported = source.names.iter().find(|of| Some(&of.name) == name);
    match exported.and_then(|of| of.stands_for.as_ref()) {
        Some(elsewhere) => target(path, elsewhere, files, depth + 1).or(Some(path)),
        None => Some(path),
    }
}

/// The files that lead back to themselves, those of a circle together.
fn in_circles(arrows: &BTreeMap<&[String], BTreeSet<&[String]>>) -> Vec<Vec<String>> {
    let reached = |from: &[String]| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(file) = next.pop() {
            for to in arrows.get(file).into_iter().flatten() {
                if seen.insert(*to) {
                    next.push(to);
                }
            }
        }
        seen
    };
    let reached: BTreeMap<&[String], BTreeSet<&[String]>> =
        arrows.keys().map(|file| (*file, reached(file))).collect();
    let mut circles: Vec<Vec<String>> = Vec::new();
    let mut taken = BTreeSet::new();
    for (file, to) in &reached {
        if to.contains(file) && !taken.contains(file) {
            let circle = to.iter().filter(|other| reached[*other].contains(file));
            let circle: Vec<&[String]> = circle.copied().collect();
            circles.push(circle.iter().map(|path| path.join("::")).collect());
            taken.extend(circle);
        }
    }
    circles
}

//! No import circles: neither between the modules at the top of `src/`, nor between the files of one.
//!
//! A file imports another where it names something that the other one defines, in `use` or inline; what a file passes on
//! by a `use` of its own is followed to the file that defines it. Methods are not seen, since no path names them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Token, imports, module_path, root, sources, tokens, without_tests};

/// How often a `use` that passes a name on is followed.
const FOLLOW_MAX: usize = 8;

/// The imports of one node of a graph, each with what shows it.
type Graph = BTreeMap<String, BTreeMap<String, String>>;

#[test]
fn modules_form_no_circle() {
    let mut graph = Graph::new();
    for (module, found) in imports() {
        let edges = graph.entry(module.clone()).or_default();
        for import in found.into_iter().filter(|import| import.target != module) {
            let shown = format!("{}:{}: {}", import.file, import.line, import.path());
            edges.entry(import.target).or_insert(shown);
        }
    }
    let circles = circles(&graph);
    assert!(circles.is_empty(), "modules that import one another:\n{}", told(&graph, &circles));
}

#[test]
fn files_form_no_circle() {
    let graph = Files::read().graph();
    let circles = circles(&graph);
    assert!(circles.is_empty(), "files that import one another:\n{}", told(&graph, &circles));
}

/// Groups of nodes that all lead to one another.
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reached: BTreeMap<&String, BTreeSet<String>> = graph.keys().map(|node| (node, reach(graph, node))).collect();
    let mut found = BTreeSet::new();
    for (node, from_here) in &reached {
        if from_here.contains(*node) {
            let back = from_here.iter().filter(|other| reached.get(other).is_some_and(|back| back.contains(*node)));
            found.insert(back.cloned().collect::<BTreeSet<_>>());
        }
    }
    found.into_iter().collect()
}

/// Every node that some way leads to.
fn reach(graph: &Graph, from: &str) -> BTreeSet<String> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
    while let Some(node) = next.pop() {
        for target in graph.get(&node).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(target.clone()) {
                next.push(target.clone());
            }
        }
    }
    reached
}

/// Every import within the circles, for people.
fn told(graph: &Graph, circles: &[BTreeSet<String>]) -> String {
    let mut text = String::new();
    for circle in circles {
        text += &format!("  {}\n", circle.iter().cloned().collect::<Vec<_>>().join(", "));
        for (node, target, shown) in circle.iter().flat_map(|node| graph[node].iter().map(move |(t, s)| (node, t, s))) {
            if circle.contains(target) {
                text += &format!("    {node} -> {target}: {shown}\n");
            }
        }
    }
    text
}

/// What one file imports.
#[derive(Debug, Default)]
struct File {
    /// Its submodules in other files.
    children: BTreeSet<String>,
    /// Every path from the root, with its line.
    paths: Vec<(usize, Vec<String>)>,
    /// What it brings into its own scope by `use`: under which name, and from where.
    names: BTreeMap<String, Vec<String>>,
}

/// All files, by their module path.
struct Files(BTreeMap<Vec<String>, File>);

impl Files {
    fn read() -> Self {
        let root = root();
        let file = |path: std::path::PathBuf| {
            let module = module_path(path.strip_prefix(&root).unwrap());
            let read = File::read(&module, &std::fs::read_to_string(&path).unwrap());
            (module, read)
        };
        Self(sources().into_iter().map(file).collect())
    }

    fn graph(&self) -> Graph {
        let mut graph = Graph::new();
        for (module, file) in &self.0 {
            let edges = graph.entry(module.join("/")).or_default();
            for (line, path) in &file.paths {
                if let Some(target) = self.defines(path, FOLLOW_MAX).filter(|target| target != module) {
                    let shown = format!("line {line}: {}", path.join("::"));
                    edges.entry(target.join("/")).or_insert(shown);
                }
            }
        }
        graph
    }

    /// The file that defines what a path names.
    fn defines(&self, path: &[String], follow: usize) -> Option<Vec<String>> {
        let depth = (1..=path.len()).rev().find(|depth| self.0.contains_key(&path[..*depth]))?;
        let (module, rest) = path.split_at(depth);
        let passed_on = rest.first().and_then(|name| self.0[module].names.get(name)).filter(|_| follow > 0);
        passed_on
            .and_then(|from| self.defines(&[from, &rest[1..]].concat(), follow - 1))
            .or_else(|| Some(module.to_vec()))
    }
}

impl File {
    fn read(module: &[String], source: &str) -> Self {
        let tokens = without_tests(tokens(source));
        let mut file = Self { children: children(&tokens), ..Self::default() };
        let mut at = 0;
        while let Some((line, word)) = tokens.get(at) {
            if word == "use" {
                let mut branches = Vec::new();
                at = branch(&tokens, at + 1, &[], &mut branches);
                for (name, path) in branches {
                    if let Some(path) = file.path_at_root(module, &path) {
                        file.paths.push((*line, path.clone()));
                        file.names.insert(name, path);
                    }
                }
                continue;
            }
            let behind = at.checked_sub(1).map(|before| tokens[before].1.as_str());
            let begins = tokens.get(at + 1).is_some_and(|next| next.1 == "::");
            // `pub(in crate::chat)` imports nothing.
            if begins && is_word(word) && behind != Some("::") && behind != Some("in") {
                let mut path = vec![word.clone()];
                while tokens.get(at + 1).is_some_and(|next| next.1 == "::")
                    && let Some((_, next)) = tokens.get(at + 2).filter(|next| is_word(&next.1))
                {
                    path.push(next.clone());
                    at += 2;
                }
                if let Some(path) = file.path_at_root(module, &path) {
                    file.paths.push((*line, path));
                }
            }
            at += 1;
        }
        file
    }

    /// A path as it is written in the file of `module`, from the crate's root; none where it leads out of the crate.
    fn path_at_root(&self, module: &[String], path: &[String]) -> Option<Vec<String>> {
        let at_root = matches!(module, [only] if only == "lib" || only == "main");
        let here = if at_root { &[] } else { module };
        let first = path.first()?;
        match first.as_str() {
            "crate" | "switchboard" => Some(path[1..].to_vec()),
            "self" => Some([here, &path[1..]].concat()),
            "super" => {
                let ups = path.iter().take_while(|word| *word == "super").count();
                Some([&here[..here.len().checked_sub(ups)?], &path[ups..]].concat())
            }
            child if self.children.contains(child) => Some([here, path].concat()),
            _ => None,
        }
    }
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The names of `mod name;`.
fn children(tokens: &[Token]) -> BTreeSet<String> {
    let module = |three: &[Token]| (three[0].1 == "mod" && three[2].1 == ";").then(|| three[1].1.clone());
    tokens.windows(3).filter_map(module).collect()
}

/// Reads one branch of a `use` and returns where it ends. Adds what it names: the name, and the path to it.
fn branch(tokens: &[Token], mut at: usize, above: &[String], found: &mut Vec<(String, Vec<String>)>) -> usize {
    let mut path = above.to_vec();
    while let Some((_, word)) = tokens.get(at) {
        match word.as_str() {
            "::" => {}
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.1 != "}") {
                    at = branch(tokens, at, &path, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token.1 == ","));
                }
                return at + 1;
            }
            "self" if !path.is_empty() => {}
            "as" => {
                let name = tokens.get(at + 1).map(|token| token.1.clone()).unwrap_or_default();
                found.push((name, path));
                return at + 2;
            }
            "*" => {
                at += 1;
                break;
            }
            word if is_word(word) => path.push(word.to_owned()),
            _ => break,
        }
        at += 1;
    }
    if let Some(name) = path.last().cloned() {
        found.push((name, path));
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files under these names (`a/b`), read from their sources.
    fn files(sources: &[(&str, &str)]) -> Files {
        let path = |name: &str| name.split('/').map(str::to_owned).collect::<Vec<_>>();
        Files(sources.iter().map(|(name, source)| (path(name), File::read(&path(name), source))).collect())
    }

    fn circles_of(sources: &[(&str, &str)]) -> Vec<Vec<String>> {
        let circles = circles(&files(sources).graph());
        circles.into_iter().map(|circle| circle.into_iter().collect()).collect()
    }

    #[test]
    fn a_child_that_takes_from_the_parent_that_builds_it_is_a_circle() {
        let child = ("a/b", "use super::Value; pub struct B(Value);");
        assert_eq!(circles_of(&[("a", "mod b; pub struct Value; fn f() { b::B; }"), child]), [["a", "a/b"]]);
        assert_eq!(circles_of(&[("a", "mod b; pub struct Value;"), child]), [[""; 0]; 0]);
    }

    #[test]
    fn what_is_passed_on_is_of_the_file_that_defines_it() {
        let passes = ("a", "mod b; mod c; pub use c::Value; use b::B;");
        let circles = circles_of(&[passes, ("a/b", "use super::Value; pub struct B;"), ("a/c", "pub struct Value;")]);
        assert!(circles.is_empty(), "{circles:?}");
    }

    #[test]
    fn circles_over_several_files_and_groups_are_found() {
        let circles = circles_of(&[
            ("a", "use crate::{b::{self, inner::X}, d};"),
            ("b", "pub mod inner;"),
            ("b/inner", "pub struct X; fn f(y: crate::c::Y) {}"),
            ("c", "pub struct Y; use crate::a as other;"),
            ("d", "pub(in crate::a) fn f() {}"),
        ]);
        assert_eq!(circles, [["a", "b/inner", "c"]]);
    }
}

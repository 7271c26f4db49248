//! Puts all mutants into the source, each behind a switch.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Block, Expr, ExprBinary, ExprStruct, ExprUnary, Member};

use crate::{Mutant, Numbers};

/// The module with the switch.
const SWITCH: &str = "mutant_switch";

/// Mutants of one place: numbers and replacements.
type Variants = Vec<(usize, String)>;

/// A place that has mutants, by offsets in the source.
struct Place {
    range: Range<usize>,
    shape: Shape,
    variants: Variants,
}

enum Shape {
    /// A function's statements; a variant answers at once.
    Body,
    /// Operands around an operator.
    Binary { left: Range<usize>, operator: Range<usize>, right: Range<usize> },
    /// An operator that a variant leaves out.
    Unary { operand: Range<usize> },
    /// A condition, for which a variant has a constant.
    Guard,
    /// A match arm's pattern, with its guard: a variant never takes the arm.
    Arm { pattern: Range<usize>, guard: Option<Range<usize>> },
    /// A field that a variant takes from the struct's base.
    Field { name: String, value: Range<usize>, base: String },
}

/// Writes the files under `tree` anew, without the mutants of `refused`. Answers those that cannot be
/// switched while the program runs.
pub(crate) fn rewrite(mutants: &[Mutant], refused: &Numbers, tree: &Path) -> Numbers {
    let mut files: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, mutant) in (1..).zip(mutants) {
        if !refused.contains(&number) {
            files.entry(&mutant.file).or_default().push(number);
        }
    }
    let mut left_out = Numbers::new();
    for (file, numbers) in files {
        let path = tree.join(file);
        let text = fs::read_to_string(&path).expect("the source is there");
        let mut wanted: HashMap<(&str, usize), Variants> = HashMap::new();
        for number in numbers {
            let mutant = &mutants[number - 1];
            // Answers of `impl Trait` have one type, and constants are not computed at run time.
            if mutant.replacement.contains("::std::iter::") || is_in_const(&text, mutant.start) {
                left_out.insert(number);
                continue;
            }
            let place = (mutant.genre.as_str(), offset(&text, mutant.start));
            wanted.entry(place).or_default().push((number, mutant.replacement.clone()));
        }
        let mut finder = Finder { text: &text, wanted, places: Vec::new() };
        finder.visit_file(&syn::parse_file(&text).expect("it is Rust"));
        let Finder { wanted, mut places, .. } = finder;
        left_out.extend(wanted.values().flatten().map(|(number, _)| *number));
        // Outer places before those within.
        places.sort_by_key(|place| {
            let is_around = matches!(place.shape, Shape::Body | Shape::Guard | Shape::Arm { .. });
            (place.range.start, std::cmp::Reverse(place.range.end), !is_around)
        });
        fs::write(&path, render(&text, 0..text.len(), &places)).expect("writes the source");
    }
    left_out
}

/// Gives the package in `source` the module that tells which mutant lives.
pub(crate) fn add_switch(source: &Path) {
    fs::write(source.join(SWITCH).with_extension("rs"), include_str!("switch.rs"))
        .expect("writes the switch");
    let root = source.join("lib.rs");
    let mut text = fs::read_to_string(&root).expect("a library");
    text += "\npub mod ";
    text += SWITCH;
    text += ";\n";
    fs::write(root, text).expect("writes the library's root");
}

/// The mutants at which the compiler's errors point: the last switch before the end of each.
pub(crate) fn blamed(messages: &str, tree: &Path) -> Numbers {
    let errors = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["message"]["level"] == "error");
    let mut found = Numbers::new();
    for error in errors {
        let spans = error["message"]["spans"].as_array().cloned().unwrap_or_default();
        for span in spans.iter().filter(|span| span["is_primary"] == true) {
            let (Some(file), Some(end)) = (span["file_name"].as_str(), span["byte_end"].as_u64())
            else {
                continue;
            };
            let text = fs::read_to_string(tree.join(file)).unwrap_or_default();
            let before = text.get(..end as usize).unwrap_or_default();
            let number = before.rsplit_once(&format!("{SWITCH}::is(")).and_then(|(_, behind)| {
                behind.split(')').next().and_then(|number| number.parse::<usize>().ok())
            });
            found.extend(number);
        }
    }
    found
}

fn offset(text: &str, (line, column): (usize, usize)) -> usize {
    let line = text.split_inclusive('\n').take(line - 1).map(str::len).sum::<usize>();
    line + text[line..].char_indices().nth(column - 1).map_or(0, |(at, _)| at)
}

fn is_in_const(text: &str, (line, _): (usize, usize)) -> bool {
    let line = text.lines().nth(line - 1).unwrap_or_default();
    line.trim_start().trim_start_matches("pub ").starts_with("const ") && line.contains('=')
}

struct Finder<'t> {
    text: &'t str,
    /// By kind and offset; what is left in the end was not found.
    wanted: HashMap<(&'t str, usize), Variants>,
    places: Vec<Place>,
}

impl<'t> Finder<'t> {
    fn add(&mut self, genre: &'t str, at: usize, range: Range<usize>, shape: Shape) {
        if let Some(variants) = self.wanted.remove(&(genre, at)) {
            self.places.push(Place { range, shape, variants });
        }
    }
}

/// Where a part of the source lies.
fn range(part: &impl Spanned) -> Range<usize> {
    part.span().byte_range()
}

/// Conditions that bind names can only be joined by `&&`.
fn binds(condition: &Expr) -> bool {
    match condition {
        Expr::Let(_) => true,
        Expr::Binary(binary) if matches!(binary.op, BinOp::And(_)) => {
            binds(&binary.left) || binds(&binary.right)
        }
        _ => false,
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_block(&mut self, block: &'a Block) {
        if let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) {
            let statements = range(first).start..range(last).end;
            self.add("FnValue", statements.start, statements, Shape::Body);
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, binary: &'a ExprBinary) {
        if !binds(&binary.left) && !binds(&binary.right) {
            let (left, operator) = (range(&binary.left), range(&binary.op));
            let (at, right) = (operator.start, range(&binary.right));
            let shape = Shape::Binary { left, operator, right };
            self.add("BinaryOperator", at, range(binary), shape);
        }
        visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'a ExprUnary) {
        let (whole, operand) = (range(unary), range(&unary.expr));
        self.add("UnaryOperator", whole.start, whole, Shape::Unary { operand });
        visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'a Arm) {
        let (pattern, guard) = (range(&arm.pat), arm.guard.as_ref().map(|(_, it)| range(it)));
        let end = guard.as_ref().map_or(pattern.end, |guard| guard.end);
        let shape = Shape::Arm { pattern: pattern.clone(), guard: guard.clone() };
        self.add("MatchArm", range(arm).start, pattern.start..end, shape);
        if let Some(guard) = guard {
            self.add("MatchArmGuard", guard.start, guard, Shape::Guard);
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, whole: &'a ExprStruct) {
        if let Some(base) = &whole.rest {
            let base = match &self.text[range(base)] {
                "Default::default()" => format!("{}::default()", &self.text[range(&whole.path)]),
                base => base.to_owned(),
            };
            for field in &whole.fields {
                let Member::Named(name) = &field.member else { continue };
                let (name, value) = (name.to_string(), range(&field.expr));
                let shape = Shape::Field { name, value, base: base.clone() };
                self.add("StructField", range(field).start, range(field), shape);
            }
        }
        visit::visit_expr_struct(self, whole);
    }
}

/// The source in `range`, with switches at the places that lie in it.
fn render(text: &str, range: Range<usize>, places: &[Place]) -> String {
    let mut out = String::new();
    let mut at = range.start;
    for (index, place) in places.iter().enumerate() {
        // What lies within a place before was rendered with it.
        if place.range.start >= at && place.range.end <= range.end {
            out += &text[at..place.range.start];
            out += &switched(text, place, &places[index + 1..]);
            at = place.range.end;
        }
    }
    out + &text[at..range.end]
}

fn switched(text: &str, place: &Place, within: &[Place]) -> String {
    let inner = |range: &Range<usize>| render(text, range.clone(), within);
    let lives = |number: &usize| format!("crate::{SWITCH}::is({number})");
    // One of the variants, or else the original.
    let choose = |variant: &dyn Fn(&str) -> String, original: String| {
        let variants = place.variants.iter().map(|(number, replacement)| {
            format!("if {} {{ {} }} else ", lives(number), variant(replacement))
        });
        format!("({} {{ {original} }})", variants.collect::<String>())
    };
    match &place.shape {
        Shape::Body => {
            let answers = place.variants.iter();
            let answers = answers
                .map(|(number, answer)| format!("if {} {{ return {answer}; }} ", lives(number)));
            answers.collect::<String>() + &inner(&place.range)
        }
        Shape::Binary { left, operator, right } => {
            let (left, right) = (inner(left), inner(right));
            let of = |operator: &str| format!("({left}) {operator} ({right})");
            choose(&of, of(&text[operator.clone()]))
        }
        Shape::Unary { operand } => {
            let operator = &text[place.range.start..operand.start];
            let operand = inner(operand);
            choose(&|_| operand.clone(), format!("{operator}{operand}"))
        }
        Shape::Guard => choose(&str::to_owned, inner(&place.range)),
        Shape::Arm { pattern, guard } => {
            let is_deleted: Vec<_> =
                place.variants.iter().map(|(number, _)| lives(number)).collect();
            let guard = guard.as_ref().map_or("true".to_owned(), inner);
            format!("{} if !({}) && ({guard})", &text[pattern.clone()], is_deleted.join(" || "))
        }
        Shape::Field { name, value, base } => {
            let field = choose(&|_| format!("({base}).{name}.clone()"), inner(value));
            format!("{name}: {field}")
        }
    }
}

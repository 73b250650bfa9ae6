//! Arithmetic on shapes of which some sizes are only names.

use super::value::{Dim, spell};

/// The shape of an element-wise operation: dimensions are matched from the last, and a size of 1 fits any other.
/// `None` where two sizes differ, or a name meets another.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let at = |shape: &[Dim], i: usize| {
        (i + shape.len()).checked_sub(rank).map_or(Dim::Fixed(1), |j| shape[j].clone())
    };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (a, b) if a == b => Some(a),
            (Dim::Fixed(1), d) | (d, Dim::Fixed(1)) => Some(d),
            _ => None,
        })
        .collect()
}

/// The shape of a reshape in ONNX's spelling: 0 keeps the size at its place, one -1 takes what is left.
///
/// # Errors
/// In words, where the numbers of elements differ or what is left has no name.
pub(super) fn reshaped(from: &[Dim], to: &[i64]) -> Result<Vec<Dim>, String> {
    let mut out: Vec<Option<Dim>> = Vec::with_capacity(to.len());
    for (i, &n) in to.iter().enumerate() {
        out.push(match n {
            0 => Some(from.get(i).cloned().ok_or_else(|| format!("0 at {i} of {to:?} keeps no size"))?),
            -1 => None,
            n => Some(Dim::Fixed(u64::try_from(n).map_err(|_| format!("a size of {n}"))?)),
        });
    }
    let (mut have, mut names) = product(from);
    let (want, want_names) = product(&out.iter().flatten().cloned().collect::<Vec<_>>());
    let differs = || format!("{} cannot be reshaped to {to:?}", spell(from));
    for name in want_names {
        let at = names.iter().position(|n| *n == name).ok_or_else(differs)?;
        names.swap_remove(at);
    }
    match out.iter().filter(|d| d.is_none()).count() {
        0 if have == want && names.is_empty() => {}
        1 if want != 0 && have % want == 0 => {
            have /= want;
            names.sort();
            let mut left: Vec<String> = names.iter().map(ToString::to_string).collect();
            if have != 1 {
                left.insert(0, have.to_string());
            }
            let left = match (&names[..], left.len()) {
                ([], _) => Dim::Fixed(have),
                (_, _) => Dim::symbol(left.join(" * ")),
            };
            out.iter_mut().filter(|d| d.is_none()).for_each(|d| *d = Some(left.clone()));
        }
        _ => return Err(differs()),
    }
    Ok(out.into_iter().flatten().collect())
}

/// The product of the numbers of a shape, and the names in it.
fn product(shape: &[Dim]) -> (u64, Vec<std::sync::Arc<str>>) {
    let mut names = Vec::new();
    let mut product = 1u64;
    for dim in shape {
        match dim {
            Dim::Fixed(n) => product = product.saturating_mul(*n),
            Dim::Symbol(s) => names.push(s.clone()),
        }
    }
    (product, names)
}

/// An axis counted from the end where it is negative; `None` where there is no such axis.
pub(super) fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let at = if axis < 0 { axis + rank } else { axis };
    (0..rank).contains(&at).then_some(at as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(text: &str) -> Vec<Dim> {
        text.split(' ')
            .filter(|t| !t.is_empty())
            .map(|t| t.parse().map_or(Dim::symbol(t), Dim::Fixed))
            .collect()
    }

    #[test]
    fn shapes_broadcast_by_number_and_by_name() {
        for (a, b, expected) in [
            ("b s 4", "4", Some("b s 4")),
            ("b 1 1 s", "b h q s", Some("b h q s")),
            ("", "3", Some("3")),
            ("2", "3", None),
            ("s", "t", None),
            ("s", "1", Some("s")),
        ] {
            assert_eq!(broadcast(&dims(a), &dims(b)), expected.map(dims), "{a} and {b}");
        }
    }

    #[test]
    fn reshapes_keep_the_number_of_elements() {
        let ok = |from: &str, to: &[i64]| reshaped(&dims(from), to).map(|d| spell(&d));
        assert_eq!(ok("b s 12", &[0, 0, 3, 4]).unwrap(), "[b, s, 3, 4]");
        assert_eq!(ok("b s 3 4", &[0, 0, -1]).unwrap(), "[b, s, 12]");
        assert_eq!(ok("b s 3", &[-1, 3]).unwrap(), "[b * s, 3]");
        assert_eq!(ok("b 4", &[-1]).unwrap(), "[4 * b]");
        assert_eq!(ok("6", &[2, -1]).unwrap(), "[2, 3]");
        for (from, to) in [("6", &[4, -1][..]), ("b s", &[0]), ("6", &[5]), ("6", &[-1, -1]), ("6", &[0, 0])]
        {
            assert!(ok(from, to).is_err(), "{from} to {to:?}");
        }
    }
}

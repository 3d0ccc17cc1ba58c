//! What a field may be, and padding between fields whose sizes their types say.

use syn::punctuated::Punctuated;
use syn::{Error, Expr, Field, GenericArgument, Ident, Lit, PathArguments, Result, Token, Type};

/// Refuses the types that two processes cannot share. What else is not a message is the compiler's to say.
pub(crate) fn check_type(field: &Ident, ty: &Type) -> Result<()> {
    let refuse = |why: &str| Err(Error::new_spanned(ty, format!("field `{field}`: {why}")));
    const POINTER: &str = "an address means nothing in another process; put the data itself here, as an array or a message";
    match ty {
        Type::Array(array) => check_type(field, &array.elem),
        Type::Group(group) => check_type(field, &group.elem),
        Type::Paren(paren) => check_type(field, &paren.elem),
        Type::Ptr(_) | Type::Reference(_) | Type::FnPtr(_) => refuse(POINTER),
        Type::Slice(_) => refuse("a field has one size: use an array, or a topic of slices"),
        Type::Tuple(_) => {
            refuse("the layout of a tuple is not fixed: use a struct that derives `Message`")
        }
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Ok(()) };
            match last.ident.to_string().as_str() {
                "usize" => refuse("its size depends on the machine: use `u64` or `u32`"),
                "isize" => refuse("its size depends on the machine: use `i64` or `i32`"),
                "bool" => refuse(
                    "not every byte is a `bool`: use `shmbus::Bool`, which is checked when it is read",
                ),
                "char" => refuse("not every number is a `char`: use `u32`, or `shmbus::FixedStr`"),
                "u128" => refuse("few tools know 128 bits: use `[u64; 2]`"),
                "i128" => refuse("few tools know 128 bits: use `[u64; 2]`"),
                "String" | "str" => refuse(
                    "text lives elsewhere in memory: use `shmbus::FixedStr<N>`, which holds it",
                ),
                "Vec" => refuse(
                    "its elements live elsewhere in memory: use an array, or a topic of slices",
                ),
                "Box" | "Rc" | "Arc" | "NonNull" | "NonZero" if last.ident != "NonZero" => {
                    refuse(POINTER)
                }
                "NonZero" => refuse("0 would be an invalid value: use the plain integer"),
                "Option" => refuse(
                    "its layout is not fixed: use a value that means none, or a `Bool` beside it",
                ),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Refuses padding that no field names, as far as the types say what the compiler will do. The same words as `shmbus::Kind::of_struct`, which
/// knows all types.
pub(crate) fn check_padding(
    ident: &Ident,
    fields: &Punctuated<Field, Token![,]>,
    align: u64,
) -> Result<()> {
    let (mut end, mut align) = (0_u64, align.max(1));
    for field in fields {
        let (Some((size, own_align)), Some(name)) = (size_and_align(&field.ty), &field.ident)
        else {
            return Ok(());
        };
        let gap = end.next_multiple_of(own_align) - end;
        if gap > 0 {
            let place = format!("{ident}: padding before `{name}`");
            return Err(Error::new_spanned(field, padding(&place, gap, "before it")));
        }
        end = end.saturating_add(size);
        align = align.max(own_align);
    }
    let gap = end.checked_next_multiple_of(align).map_or(0, |whole| whole - end);
    match fields.last() {
        Some(field) if gap > 0 => {
            let name = field.ident.as_ref().map(Ident::to_string).unwrap_or_default();
            let place = format!("{ident}: padding behind `{name}`");
            Err(Error::new_spanned(field, padding(&place, gap, "as the last field")))
        }
        _ => Ok(()),
    }
}

fn padding(place: &str, bytes: u64, mend: &str) -> String {
    format!("{place}, {bytes} bytes that belong to no field: add `_padding: [u8; {bytes}]` {mend}")
}

/// Of numbers, `Bool`, and texts and arrays whose length is a literal.
fn size_and_align(ty: &Type) -> Option<(u64, u64)> {
    match ty {
        Type::Array(array) => {
            let (size, align) = size_and_align(&array.elem)?;
            Some((size.checked_mul(literal(&array.len)?)?, align))
        }
        Type::Group(group) => size_and_align(&group.elem),
        Type::Paren(paren) => size_and_align(&paren.elem),
        Type::Path(path) => {
            let last = path.path.segments.last()?;
            let size = match last.ident.to_string().as_str() {
                "u8" | "i8" | "Bool" => 1,
                "u16" | "i16" => 2,
                "u32" | "i32" | "f32" => 4,
                "u64" | "i64" | "f64" => 8,
                "FixedStr" => return Some((text_len(&last.arguments)?, 1)),
                _ => return None,
            };
            Some((size, size))
        }
        _ => None,
    }
}

/// `N` of `FixedStr<N>`.
fn text_len(arguments: &PathArguments) -> Option<u64> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return None };
    match arguments.args.first()? {
        GenericArgument::Const(len) => literal(len),
        _ => None,
    }
}

fn literal(len: &Expr) -> Option<u64> {
    match len {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) => number.base10_parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

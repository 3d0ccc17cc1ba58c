//! `#[derive(Message)]` and `#[derive(MessageEnum)]` of shmbus. Use them as `shmbus::Message` and `shmbus::MessageEnum`.
//!
//! What is wrong with the source is said here, at the field where it is. Padding is found here where all fields are numbers, arrays and texts;
//! else, and in any case, when the constants of the message are evaluated: `shmbus::Kind::of_struct`.

mod fields;

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Fields, Ident, LitInt, LitStr, Result, Token};

/// Longest name of a message, in bytes; as in `shmbus`.
const NAME_MAX: usize = 120;
/// Largest alignment of a message; as in `shmbus`.
const ALIGN_MAX: u64 = 4096;

/// Describes a `#[repr(C)]` struct with named fields: name, version, fields and layout hash.
///
/// `#[message(name = "md.Quote", version = 2)]` gives the name (else that of the struct) and the version (else 1). Beside it stand
/// `Clone`, `Copy`, and bytemuck's `Pod` and `Zeroable`. Fields are integers of 8 to 64 bits, `f32`, `f64`, arrays,
/// other messages, `FixedStr<N>`, `Bool` and `Enum<E>`. A field whose name begins with `_` is padding: part of the layout,
/// not shown by tools.
///
/// Refused with a message that names the field: bytes that belong to no field, pointers and references, `usize`, `bool`, `char`,
/// generics, tuple structs, enums and unions, and what is not `repr(C)`.
#[proc_macro_derive(Message, attributes(message))]
pub fn derive_message(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    message(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Describes an enum without data, so that messages carry it as `Enum<Side>` and tools print its names.
///
/// It needs a `#[repr]` of `u8` to `u64` or `i8` to `i64`, and `Copy`. `#[message(name = "md.Side")]` gives the name, else it is that of the enum.
#[proc_macro_derive(MessageEnum, attributes(message))]
pub fn derive_message_enum(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    message_enum(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn message(input: &DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if !fields.named.is_empty() => &fields.named,
            Fields::Unnamed(_) => {
                return Err(Error::new_spanned(
                    ident,
                    "a message has named fields: tools and other languages show their names",
                ));
            }
            _ => return Err(Error::new_spanned(ident, "a message has at least one field")),
        },
        Data::Enum(_) => {
            return Err(Error::new_spanned(
                ident,
                format!(
                    "an enum is not a message: derive `MessageEnum`, and use `Enum<{ident}>` as the type of a field"
                ),
            ));
        }
        Data::Union(_) => {
            return Err(Error::new_spanned(
                ident,
                "a union is not a message: nothing says which of its fields is meant",
            ));
        }
    };
    let mut wrong = Wrong(None);
    if !input.generics.params.is_empty() {
        wrong.add(Error::new_spanned(
            &input.generics,
            "a message has no parameters: its layout is shared with other programs",
        ));
    }
    let align = check_struct_repr(input);
    let align = align.map_err(|error| wrong.add(error)).unwrap_or(1);
    let attributes = Attributes::of(input, &mut wrong);
    let mut entries = Vec::new();
    for field in fields {
        let Some(name) = &field.ident else { continue };
        let text = plain(name);
        if !is_identifier(&text) {
            wrong.add(Error::new_spanned(
                name,
                "the name of a field is made of ASCII letters, digits and `_`",
            ));
        }
        wrong.add_all(fields::check_type(name, &field.ty));
        let ty = &field.ty;
        entries.push(quote! {
            ::shmbus::__derive::Field::new(
                #text,
                <#ty as ::shmbus::Message>::KIND,
                ::core::mem::offset_of!(#ident, #name),
            )
        });
    }
    wrong.end()?;
    fields::check_padding(ident, fields, align)?;
    let (name, version) = (attributes.name, attributes.version);
    Ok(quote! {
        // SAFETY: `of_struct` compiles only if the fields that it is told, whose offsets the compiler states, cover each byte of the type.
        #[automatically_derived]
        unsafe impl ::shmbus::Message for #ident {
            const NAME: &'static str = #name;
            const VERSION: u32 = #version;
            const FIELDS: &'static [::shmbus::__derive::Field] = &[#(#entries),*];
            const KIND: &'static ::shmbus::__derive::Kind = &::shmbus::__derive::Kind::of_struct(
                <Self as ::shmbus::Message>::NAME,
                <Self as ::shmbus::Message>::VERSION,
                ::core::mem::size_of::<#ident>(),
                ::core::mem::align_of::<#ident>(),
                <Self as ::shmbus::Message>::FIELDS,
            );
        }
        // Refused here, not where it is used first.
        const _: &::shmbus::__derive::Kind = <#ident as ::shmbus::Message>::KIND;
    })
}

fn message_enum(input: &DeriveInput) -> Result<TokenStream> {
    let ident = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(ident, "MessageEnum is for enums: derive `Message` here"));
    };
    let mut wrong = Wrong(None);
    if !input.generics.params.is_empty() {
        wrong.add(Error::new_spanned(&input.generics, "an enum in a message has no parameters"));
    }
    if data.variants.is_empty() {
        wrong.add(Error::new_spanned(ident, "an enum in a message has at least one variant"));
    }
    for variant in &data.variants {
        if !matches!(variant.fields, Fields::Unit) {
            wrong.add(Error::new_spanned(
                &variant.fields,
                format!(
                    "variant `{}` carries data, which an enum in a message does not",
                    variant.ident
                ),
            ));
        }
        if !is_identifier(&plain(&variant.ident)) {
            wrong.add(Error::new_spanned(
                &variant.ident,
                "the name of a variant is made of ASCII letters, digits and `_`",
            ));
        }
    }
    const REPRS: [&str; 8] = ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64"];
    let repr = reprs(&input.attrs)?.into_iter().find(|(name, _)| REPRS.contains(&name.as_str()));
    if repr.is_none() {
        wrong.add(Error::new_spanned(
            ident,
            format!("`{ident}` needs `#[repr(u8)]`, or another integer of 8 to 64 bits: its size is shared with other programs"),
        ));
    }
    let attributes = Attributes::of(input, &mut wrong);
    if let Some(span) = attributes.version_span {
        wrong.add(Error::new(span, "an enum has no version: its names and values are compared"));
    }
    wrong.end()?;
    let Some((repr, span)) = repr else { return Ok(TokenStream::new()) };
    let repr = Ident::new(&repr, span);
    let name = attributes.name;
    let variants: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let names = variants.iter().map(|variant| plain(variant));
    Ok(quote! {
        #[automatically_derived]
        impl ::shmbus::MessageEnum for #ident {
            const NAME: &'static str = #name;
            const VARIANTS: &'static [::shmbus::__derive::Variant] = &[#(
                ::shmbus::__derive::Variant { name: #names, value: #ident::#variants as #repr as i128 }
            ),*];
            type Repr = #repr;
            #[inline]
            fn to_repr(self) -> #repr {
                self as #repr
            }
            #[inline]
            fn from_repr(repr: #repr) -> ::core::option::Option<Self> {
                #(if repr == #ident::#variants as #repr {
                    return ::core::option::Option::Some(#ident::#variants);
                })*
                ::core::option::Option::None
            }
        }
        const _: &::shmbus::__derive::Kind = <::shmbus::Enum<#ident> as ::shmbus::Message>::KIND;
    })
}

/// Errors so far, so that all are shown at once.
struct Wrong(Option<Error>);

impl Wrong {
    fn add(&mut self, error: Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            None => self.0 = Some(error),
        }
    }

    fn add_all(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.add(error);
        }
    }

    fn end(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// What `#[message(...)]` says.
struct Attributes {
    name: String,
    version: u32,
    version_span: Option<Span>,
}

impl Attributes {
    fn of(input: &DeriveInput, wrong: &mut Wrong) -> Attributes {
        let mut attributes =
            Attributes { name: plain(&input.ident), version: 1, version_span: None };
        let mut name_span = input.ident.span();
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("message"))
        {
            wrong.add_all(attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("name") {
                    let name: LitStr = meta.value()?.parse()?;
                    attributes.name = name.value();
                    name_span = name.span();
                } else if meta.path.is_ident("version") {
                    let version: LitInt = meta.value()?.parse()?;
                    attributes.version = version.base10_parse()?;
                    attributes.version_span = Some(version.span());
                } else {
                    return Err(meta.error("expected `name = \"md.Quote\"` or `version = 1`"));
                }
                Ok(())
            }));
        }
        if !is_type_name(&attributes.name) {
            wrong.add(Error::new(
                name_span,
                "the name of a message is made of ASCII letters, digits and `_`, with dots between (`md.Quote`), up to 120 bytes, \
                 and is not that of a field type: choose one with `#[message(name = \"...\")]`",
            ));
        }
        attributes
    }
}

/// The alignment that the `repr` asks for.
fn check_struct_repr(input: &DeriveInput) -> Result<u64> {
    let reprs = reprs(&input.attrs)?;
    let mut align = 1;
    let refuse = |span, what: &str| Err(Error::new(span, what));
    for (name, span) in &reprs {
        if name.starts_with("packed") {
            return refuse(*span, "a message is not packed: its fields are read by reference");
        }
        let aligned = name.strip_prefix("align(").and_then(|rest| rest.strip_suffix(')'));
        if let Some(given) = aligned.and_then(|given| given.parse::<u64>().ok()) {
            if given > ALIGN_MAX {
                return refuse(
                    *span,
                    "a message is not aligned to more than 4096, the size of a page",
                );
            }
            align = align.max(given);
        }
    }
    if !reprs.iter().any(|(name, _)| name == "C") {
        let what = format!(
            "`{}` needs `#[repr(C)]`: without it, another compilation may order the fields differently",
            input.ident
        );
        return refuse(input.ident.span(), &what);
    }
    Ok(align)
}

/// The words of all `#[repr(...)]`, without spaces.
fn reprs(attributes: &[Attribute]) -> Result<Vec<(String, Span)>> {
    let mut words = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        let metas =
            attribute.parse_args_with(Punctuated::<TokenTrees, Token![,]>::parse_terminated)?;
        words.extend(metas.into_iter().map(|TokenTrees(text, span)| (text, span)));
    }
    Ok(words)
}

/// One word of a `repr`, such as `align(64)`.
struct TokenTrees(String, Span);

impl syn::parse::Parse for TokenTrees {
    fn parse(input: syn::parse::ParseStream<'_>) -> Result<Self> {
        let meta: syn::Meta = input.parse()?;
        let span = meta.span();
        Ok(TokenTrees(quote!(#meta).to_string().replace(' ', ""), span))
    }
}

/// A name without the `r#` of a raw identifier.
fn plain(ident: &Ident) -> String {
    let text = ident.to_string();
    text.strip_prefix("r#").map_or(text.clone(), str::to_owned)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.len() <= NAME_MAX
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_type_name(text: &str) -> bool {
    const TAKEN: [&str; 12] =
        ["u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "f32", "f64", "bool", "text"];
    text.len() <= NAME_MAX && text.split('.').all(is_identifier) && !TAKEN.contains(&text)
}

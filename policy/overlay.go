package policy

import (
	"reflect"
)

// Overlaid returns a document as the cluster at index to of a Distribution gets it. Without an overlay for it that is the document
// itself; else its text is laid out as `fmt` does, with the comments of what stays. The same documents always give the same text.
//
// An overlay that makes the document wrong is a problem of the Distribution, at the overlay's patch; there is no document then.
func (d *Document) Overlaid(to int, doc *Document) (*Document, []Problem) {
	overlays := d.Spec.(*DistributionSpec).To[to].Overlays
	for i := range overlays {
		if !overlays[i].Changes(doc) {
			continue
		}
		at := joinIndex(joinIndex("spec.to", to)+".overlays", i) + ".patch"
		text, err := merge(doc.source, d.tree.value(at), layoutOf(doc.Kind))
		if err != nil {
			return nil, []Problem{d.Problem(Error, at, "cannot change %s %s: %s", doc.Kind, doc.Name, err)}
		}
		changed, problems := Decode(doc.Origin.File, []byte(text))
		for j, p := range problems {
			told := d.Problem(p.Severity, at, "makes %s %s wrong: %s", doc.Kind, doc.Name, p.Message)
			if p.Path != "" {
				told.Message = d.Problem(p.Severity, at, "makes %s %s wrong: %s: %s", doc.Kind, doc.Name, p.Path, p.Message).Message
			}
			told.Suggestion = p.Suggestion
			problems[j] = told
		}
		if len(changed) != 1 {
			return nil, problems
		}
		doc = changed[0]
	}
	return doc, nil
}

// documentLayout is what writing a document needs to know of its kind.
type documentLayout struct {
	// rank is the order of the fields of the mapping at a path.
	rank func(path []string) []string
	// named reports whether the items of the list at a path are known by their names.
	named func(path []string) bool
}

func layoutOf(kind Kind) documentLayout {
	return documentLayout{
		rank: func(path []string) []string { return order(kind, path) },
		named: func(path []string) bool {
			t := typeAt(kind, path)
			return t != nil && t.Kind() == reflect.Slice && namedItems(t.Elem())
		},
	}
}

// namedItems reports whether the items of a list are known by their names: they have one, and must.
func namedItems(item reflect.Type) bool {
	if !isStruct(item) {
		return false
	}
	f := fieldNamed(Fields(item), "name")
	return f != nil && f.Required
}

package cluster

import (
	"fmt"
	"os"
	"path/filepath"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// readDefinitions reads the CustomResourceDefinitions of a directory as they are. The suite reads
// version and channel from their annotations.
func readDefinitions(directory string) ([]apiextensionsv1.CustomResourceDefinition, error) {
	names, err := filepath.Glob(filepath.Join(directory, "*.yaml"))
	if err != nil {
		return nil, err
	}
	var definitions []apiextensionsv1.CustomResourceDefinition
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var definition apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &definition); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if definition.Kind == "CustomResourceDefinition" {
			definitions = append(definitions, definition)
		}
	}
	if len(definitions) == 0 {
		return nil, fmt.Errorf("no CustomResourceDefinition in %s", directory)
	}
	return definitions, nil
}

// Table reads the events of `go test -json` and says what became of each test of the suite. The
// suite's report cannot be asked for that: it is written before the tests that run in parallel have
// ended, and counts them as passed.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/sets"
	"sigs.k8s.io/gateway-api/conformance/tests"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
	"sigs.k8s.io/gateway-api/pkg/features"
)

var (
	report = flag.String("report", "", "the suite's report")
	docs   = flag.String("docs", "", "where to write report and table; nowhere if not given")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	run := read()
	failed := run.show()
	if !run.ended || len(run.tests) == 0 {
		log.Fatal("the suite did not come to its end")
	}
	if *docs != "" {
		run.write()
	}
	if failed {
		os.Exit(1)
	}
}

// run is what became of one run of the suite.
type run struct {
	tests map[string]*result
	// What belongs to no single test.
	rest  result
	ended bool
}

type result struct {
	action string
	output strings.Builder
}

// event is one line of `go test -json`.
type event struct {
	Action  string
	Test    string
	Elapsed float64
	Output  string
}

// read takes in all events, and shows each test as it ends.
func read() *run {
	run := &run{tests: map[string]*result{}}
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) == 0 && err != nil {
			return run
		}
		var event event
		if err := json.Unmarshal(line, &event); err != nil {
			fmt.Printf("%s", line)
			continue
		}
		// TestConformance/HTTPRouteWeight/and_its_subtests
		parts := strings.Split(event.Test, "/")
		one := &run.rest
		if len(parts) > 1 {
			if run.tests[parts[1]] == nil {
				run.tests[parts[1]] = &result{}
			}
			one = run.tests[parts[1]]
		}
		switch event.Action {
		case "output":
			one.output.WriteString(event.Output)
		case "pass", "fail", "skip":
			switch len(parts) {
			case 1:
				one.action = event.Action
				run.ended = run.ended || event.Test != ""
			case 2:
				one.action = event.Action
				if event.Action != "skip" {
					fmt.Printf("%s %s %.1f s\n", event.Action, parts[1], event.Elapsed)
				}
			}
		}
	}
}

// show prints what failed, with all that was said of it.
func (r *run) show() bool {
	var names []string
	for name, result := range r.tests {
		if result.action == "fail" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) == 0 && r.rest.action != "pass" {
		fmt.Print(r.rest.output.String())
		return true
	}
	for _, name := range names {
		fmt.Printf("\n=== %s\n%s", name, r.tests[name].output.String())
	}
	for _, name := range names {
		fmt.Printf("failed: %s\n", name)
	}
	return len(names) > 0
}

// The profiles in the order of the table.
var profiles = []suite.ConformanceProfile{
	suite.GatewayHTTPConformanceProfile,
	suite.GatewayGRPCConformanceProfile,
	suite.GatewayTLSConformanceProfile,
	suite.GatewayTCPConformanceProfile,
	suite.GatewayUDPConformanceProfile,
}

// level says what a test is to a profile, by the rule of the suite's own report: it counts for a
// profile that has all the features it needs, as a core test where all of them are core.
func level(test suite.ConformanceTest, profile suite.ConformanceProfile) string {
	needs := sets.New(test.Features...)
	switch {
	case profile.CoreFeatures.IsSuperset(needs):
		return "core"
	case profile.CoreFeatures.Union(profile.ExtendedFeatures).IsSuperset(needs):
		return "extended"
	default:
		return ""
	}
}

// ofMesh says that a test is not of a gateway.
func ofMesh(test suite.ConformanceTest) bool {
	all := features.SetsToNamesSet(features.MeshCoreFeatures, features.MeshExtendedFeatures)
	return sets.New(test.Features...).HasAny(all.UnsortedList()...)
}

const (
	begin = "<!-- results: written by `make conformance` -->\n"
	end   = "<!-- end of results -->\n"
)

// write puts the results into the page, and the report beside it.
func (r *run) write() {
	path := filepath.Join(*docs, "conformance.md")
	text, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	before, rest, found := bytes.Cut(text, []byte(begin))
	_, after, foundEnd := bytes.Cut(rest, []byte(end))
	if !found || !foundEnd {
		log.Fatalf("%s has no place for the results", path)
	}
	page := slices.Concat(before, []byte(begin), []byte(r.summary()), []byte(r.everyTest()),
		[]byte(end), after)
	if err := os.WriteFile(path, page, 0o644); err != nil {
		log.Fatal(err)
	}

	written, err := os.ReadFile(*report)
	if err != nil {
		log.Fatal(err)
	}
	directory := filepath.Join(*docs, "conformance")
	if err := os.MkdirAll(directory, 0o755); err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(directory, "report.yaml"), written, 0o644); err != nil {
		log.Fatal(err)
	}
}

func (r *run) summary() string {
	var table strings.Builder
	table.WriteString("\n| profile | core | extended |\n|---|---|---|\n")
	for _, profile := range profiles {
		passed, all := map[string]int{}, map[string]int{}
		for _, test := range tests.ConformanceTests {
			of := level(test, profile)
			all[of]++
			if result := r.tests[test.ShortName]; result != nil && result.action == "pass" {
				passed[of]++
			}
		}
		fmt.Fprintf(&table, "| %s | %d of %d | %d of %d |\n", profile.Name,
			passed["core"], all["core"], passed["extended"], all["extended"])
	}
	return table.String()
}

func (r *run) everyTest() string {
	all := slices.Clone(tests.ConformanceTests)
	slices.SortFunc(all, func(a, b suite.ConformanceTest) int {
		return cmp.Compare(a.ShortName, b.ShortName)
	})
	words := map[string]string{"pass": "passed", "fail": "**failed**", "skip": "skipped"}
	var table strings.Builder
	table.WriteString("\n| test | counts for | result |\n|---|---|---|\n")
	for _, test := range all {
		if ofMesh(test) {
			continue
		}
		var counts []string
		for _, profile := range profiles {
			if of := level(test, profile); of != "" {
				short := strings.TrimPrefix(string(profile.Name), "GATEWAY-")
				counts = append(counts, short+" "+of)
			}
		}
		became := "did not run"
		if result := r.tests[test.ShortName]; result != nil {
			became = words[result.action]
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", test.ShortName, strings.Join(counts, ", "), became)
	}
	table.WriteString("\n")
	return table.String()
}

"""What tools/compare is made of: `variants` what is compared, `runs` one of them, `report` the table and the chart."""

"""A recipe as one file of plain PyTorch: ``single_file`` selects lines of ``template.txt``."""
